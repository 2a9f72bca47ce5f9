"""The torch backend on the CPU: onnxruntime's numbers, rows that leave for another backend, and rows that know nothing
of one another. On a GPU the same code runs; bench.gpu repeats the parity there."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nemostream.encoders import EncoderRows, Floats
from nemostream.encoders.onnx import OnnxBackend
from nemostream.encoders.resident import ResidentRows
from nemostream.encoders.torch import TorchBackend
from nemostream.errors import BundleError, DeviceError, EngineFull, SnapshotError, StepFailed, UnsupportedChunk
from nemostream.greedy import RnntDecoder
from nemostream.models import catalog
from nemostream.models.bundle import Bundle, load_bundle
from nemostream.models.initializers import encoder_weights, read_initializers
from tests import clips
from tests.models.conftest import Golden
from tests.models.streaming import chunk_of, encode, log_mel
from tests.speech import utterance

FP32 = 2e-5
"""Between two float32 programs; 2.5e-6 is the most that was seen."""
REDUCED: dict[str, float] = {"bf16": 2e-2, "fp16": 2e-3}
"""Of the frames' root mean square; 6.1e-3 and 7.4e-4 were seen."""


def make_rows(bundle: Bundle, frames: int, capacity: int, spare: int = 0, precision: str = "fp32") -> ResidentRows:
    return TorchBackend.load(bundle, precision, "cpu").rows(frames, capacity, spare)


def noise(bundle: Bundle, frames: int, seed: int = 0) -> Floats:
    """Log-mel of a chunk of noise, (8T, n_mels)."""
    return np.random.RandomState(seed).randn(8 * frames, bundle.info.mel.n_mels).astype(np.float32) * 2 - 8


def test_fp32_equals_onnxruntime_and_nemo(golden: Golden) -> None:
    """Every chunk size, streams that start at different ticks, batches that are views and gathered ones in turn."""
    for lookahead in golden.lookaheads:
        frames = lookahead + 1
        spare = 6 * (lookahead == golden.lookaheads[0])
        found, onnx = (
            encode(rows, golden.mels, starts=[0, 2, 5], order=np.random.RandomState(0))
            for rows in (
                make_rows(golden.bundle, frames, 5, spare),
                OnnxBackend(golden.bundle, "fp32", 1).rows(frames, 5, spare),
            )
        )
        for mine, other, nemo in zip(found, onnx, golden.encoded(lookahead), strict=True):
            assert np.abs(mine - other).max() < FP32
            assert np.abs(mine - nemo).max() < 5e-5


@pytest.mark.parametrize("precision", REDUCED)
def test_half_precision_stays_close_to_fp32(golden: Golden, precision: str) -> None:
    frames = golden.lookaheads[0] + 1
    exact, reduced = (
        np.concatenate(encode(make_rows(golden.bundle, frames, 3, precision=kind), golden.mels))
        for kind in ("fp32", precision)
    )
    assert not np.array_equal(exact, reduced)
    assert np.sqrt(((exact - reduced) ** 2).mean() / (exact**2).mean()) < REDUCED[precision]


def test_what_adds_up_over_the_layers_stays_float32(toy_bundle: Bundle) -> None:
    """Norms on a GPU take nothing else, and their weights are float32."""
    backend = TorchBackend.load(toy_bundle, "bf16", "cpu")
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    for layer in backend.module.layers:
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append((inputs[0].dtype, inputs[2].dtype)))
    backend.rows(2, 1, 0).step(1, noise(toy_bundle, 2)[None])
    assert seen == [(torch.float32, torch.bfloat16)] * len(backend.module.layers)


def test_a_prompt_reaches_its_row_alone(kind_bundle: Callable[[str], Bundle]) -> None:
    bundle = kind_bundle("prompt")
    mel = np.stack([noise(bundle, 1)] * 3)
    prompts = np.array([0, 1, 1])
    found, onnx = (
        rows.step(3, mel, prompts).copy()
        for rows in (make_rows(bundle, 1, 3), OnnxBackend(bundle, "fp32", 1).rows(1, 3, 0))
    )
    assert np.abs(found - onnx).max() < FP32
    assert np.abs(found[0] - found[1]).max() > 0.1 and np.array_equal(found[1], found[2])


def tokens(bundle: Bundle, rows: EncoderRows, mels: list[Floats]) -> list[list[tuple[int, int]]]:
    decoder = RnntDecoder(bundle.weights, bundle.info.max_symbols, len(mels))
    encoded = encode(rows, mels)
    longest = max(map(len, encoded))
    batch = np.stack([np.pad(e, ((0, longest - len(e)), (0, 0))) for e in encoded])
    for row in range(len(mels)):
        decoder.reset(row)
    found = decoder.step(np.arange(len(mels)), batch, np.array([len(e) for e in encoded]))
    return [[(t.id, t.frame) for t in said] for said in found]


def test_the_embedded_models_tokens_are_the_same_in_half_precision() -> None:
    """Its bundle holds int8 alone: the matrices are what int8 left of them, the sums are those of each precision."""
    bundle = load_bundle(catalog.resolve(None))
    mels = [log_mel(bundle, clips.clip(name)) for name in ("monday", "refund", "tomorrow")]
    exact = tokens(bundle, make_rows(bundle, 7, 3), mels)
    assert min(map(len, exact)) > 5
    for precision in REDUCED:
        reduced = tokens(bundle, make_rows(bundle, 7, 3, precision=precision), mels)
        for said, expected in zip(reduced, exact, strict=True):
            assert [token for token, _ in said] == [token for token, _ in expected]
            assert all(abs(a - b) <= 1 for (_, a), (_, b) in zip(said, expected, strict=True))


@pytest.mark.parametrize("source", ["onnx", "torch"])
@pytest.mark.parametrize("frames", [1, 7])
def test_a_row_of_one_backend_goes_on_in_the_other(toy_bundle: Bundle, source: str, frames: int) -> None:
    mel = log_mel(toy_bundle, utterance(1000, 13)[1])
    backends = {"onnx": OnnxBackend(toy_bundle, "fp32", 1), "torch": TorchBackend.load(toy_bundle, "fp32", "cpu")}
    stays, other = (backends[name].rows(frames, 3, 7) for name in (source, {"onnx": "torch", "torch": "onnx"}[source]))
    chunks = (len(mel) + 7) // (8 * frames)
    for k in range(chunks):
        if k == chunks // 2:
            saved = stays.export(1)
            other.check(saved)
            other.load(2, saved)
        chunk = np.stack([noise(toy_bundle, frames, k), chunk_of(mel, k, frames), chunk_of(mel, k, frames)])
        expected = stays.step(2, chunk[:2])[1]
        if k >= chunks // 2:
            assert np.abs(other.step(3, chunk)[2] - expected).max() < FP32
            other.commit(np.array([2]))
        stays.commit(np.array([1]))
    left, right = stays.export(1), other.export(2)
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert array.dtype == right[name].dtype and np.abs(array - right[name]).max() < 1e-4


def test_a_damaged_row_is_refused(toy_bundle: Bundle) -> None:
    rows = make_rows(toy_bundle, 2, 1)
    saved = rows.export(0)
    for damage in (
        {"k1": saved["k1"][:, 1:]},
        {"position": np.array(-2)},
        {"position": np.array(3)},
        {"s1": saved["s1"] * np.nan},
        {"v0": saved["v0"].astype(np.float64)},
    ):
        with pytest.raises(SnapshotError):
            rows.check(saved | damage)
    with pytest.raises(SnapshotError):
        rows.check({name: array for name, array in saved.items() if name != "c3"})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("frames", [1, 14])
def test_a_row_does_not_hear_its_neighbours(random_bundle: Bundle, precision: str, frames: int) -> None:
    """Beside silence, noise at full scale and absurd values, at the same batch size: the same bits."""
    neighbours = {
        "silence": np.full((8 * frames, 128), np.log(2.0**-24), np.float32),
        "noise": np.abs(noise(random_bundle, frames, 1)) + 5,
        "absurd": np.full((8 * frames, 128), 1e4, np.float32),
    }
    if precision == "fp16":
        del neighbours["absurd"]  # no number of that precision: the batch is tried again without it
    heard = []
    for place, neighbour in itertools.product((0, 2), neighbours.values()):
        rows = make_rows(random_bundle, frames, 4, precision=precision)
        out = []
        for k in range(28 // frames):
            batch = np.stack([neighbour] * 4)
            batch[place] = noise(random_bundle, frames, 100 + k)
            out.append(rows.step(4, batch)[place].copy())
            rows.commit(np.arange(4))
        heard.append(np.concatenate(out))
    assert all(np.array_equal(heard[0], other) for other in heard[1:])


def test_a_step_without_commit_leaves_no_trace(toy_bundle: Bundle) -> None:
    mel = log_mel(toy_bundle, utterance(1000, 13)[1])
    plain, peeked = make_rows(toy_bundle, 2, 1), make_rows(toy_bundle, 2, 1)
    for k in range(len(mel) // 16):
        peeked.step(1, noise(toy_bundle, 2, k)[None])
        chunk = chunk_of(mel, k, 2)[None]
        expected = plain.step(1, chunk).copy()
        assert np.array_equal(peeked.step(1, chunk), expected)
        plain.commit(np.array([0]))
        peeked.commit(np.array([0]))


@pytest.mark.parametrize("frames", [1, 14])
def test_a_row_that_rides_along_keeps_all_it_had(toy_bundle: Bundle, frames: int) -> None:
    """With full rings and no spare columns: others commit in between, while it hears noise and keeps nothing."""
    mel = log_mel(toy_bundle, utterance(1000, 13)[1])
    plain, rides = make_rows(toy_bundle, frames, 2), make_rows(toy_bundle, frames, 2)
    chunks = (len(mel) + 7) // (8 * frames)
    assert chunks * frames > 75
    for k in range(chunks):
        batch = np.stack([chunk_of(mel, k, frames)] * 2)
        rides.step(2, np.stack([batch[0], noise(toy_bundle, frames, k)]))
        rides.commit(np.array([0]))
        assert np.array_equal(rides.step(2, batch)[1], plain.step(2, batch)[1])
        rides.commit(np.array([1]))
        plain.commit(np.array([1]))


@pytest.mark.parametrize("frames", [1, 2, 7, 14])
def test_undone_commits_leave_no_trace(toy_bundle: Bundle, frames: int) -> None:
    """At every chunk of a stream longer than the left context: commit up to `spare` frames, go back, go on."""
    mel = log_mel(toy_bundle, utterance(1000, 13)[1])
    tentative = 4 if frames < 4 else 1
    plain, undone = (make_rows(toy_bundle, frames, 2, tentative * frames) for _ in range(2))
    for k in range((len(mel) + 7) // (8 * frames)):
        saved = undone.save(1)
        for tick in range(1 + k % tentative):
            undone.step(2, np.stack([noise(toy_bundle, frames, 9 * k + tick)] * 2))
            undone.commit(np.array([1]))
        undone.restore(1, saved)
        batch = np.stack([chunk_of(mel, k, frames)] * 2)
        assert np.array_equal(undone.step(2, batch)[1], plain.step(2, batch)[1])
        undone.commit(np.array([1]))
        plain.commit(np.array([1]))


def test_going_back_further_than_the_spare_columns_is_refused(toy_bundle: Bundle) -> None:
    rows = make_rows(toy_bundle, 2, 1, spare=2)
    saved = rows.save(0)
    for _ in range(2):
        rows.step(1, noise(toy_bundle, 2)[None])
        rows.commit(np.array([0]))
    with pytest.raises(ValueError, match="can go back 2"):
        rows.restore(0, saved)


def test_a_leavers_row_is_filled_by_the_last_one(toy_bundle: Bundle) -> None:
    mels = [log_mel(toy_bundle, utterance(2000 + s, 9)[1]) for s in range(3)]
    rows = make_rows(toy_bundle, 2, 3)
    alone = encode(make_rows(toy_bundle, 2, 1), [mels[2]])[0]
    found = []
    for k in range(len(alone) // 2):
        if k == 9:
            rows.move(2, 0)
        live = [2, 1] if k >= 9 else [0, 1, 2]
        encoded = rows.step(len(live), np.stack([chunk_of(mels[s], k, 2) for s in live]))
        rows.commit(np.arange(len(live)))
        found.append(encoded[live.index(2)].copy())
    assert np.abs(np.concatenate(found) - alone).max() < 1e-4


@pytest.mark.parametrize("frames", [1, 14])
def test_a_front_end_in_slices_gives_the_same(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    """Large batches go through it in parts."""
    mel = np.stack([noise(toy_bundle, frames, i) for i in range(5)])
    whole = make_rows(toy_bundle, frames, 5).step(5, mel).copy()
    monkeypatch.setattr("nemostream.encoders.torch.FRONT_MEL_FRAMES", 16 * frames)
    backend = TorchBackend.load(toy_bundle, "fp32", "cpu")
    rows, front, widths = backend.rows(frames, 5, 0), backend.module.front.front, list[int]()
    front.register_forward_pre_hook(lambda module, inputs: widths.append(len(inputs[0])))
    assert np.abs(rows.step(5, mel) - whole).max() < FP32 and widths == [2, 2, 1]


def test_a_result_that_is_not_finite_is_never_kept(toy_bundle: Bundle) -> None:
    rows = make_rows(toy_bundle, 1, 2)
    mel = np.stack([noise(toy_bundle, 1)] * 2)
    expected = rows.step(2, mel).copy()
    poisoned = mel.copy()
    poisoned[1, 3, 3] = np.nan
    with pytest.raises(StepFailed, match="not finite"):
        rows.step(2, poisoned)
    with pytest.raises(ValueError, match="no step"):
        rows.commit(np.array([1]))
    assert np.array_equal(rows.step(2, mel), expected)


def test_what_cannot_run_is_said_in_one_sentence(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TorchBackend.load(toy_bundle, "fp32", "cpu")
    with pytest.raises(UnsupportedChunk, match="no chunk of 3 frames; it offers 1, 2, 7, 14"):
        backend.rows(3, 1, 0)
    with pytest.raises(ValueError, match="mel is"):
        backend.rows(1, 2, 0).step(1, np.zeros((1, 9, 80), np.float32))
    with pytest.raises(EngineFull, match="no memory for 1000000000 rows .*; lower max_streams"):
        backend.rows(1, 10**9, 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="finds no GPU; install"):
        TorchBackend.load(toy_bundle, "bf16", "cuda")


def test_weights_of_the_graph_are_those_of_the_step(golden: Golden) -> None:
    """By name and to the bit, from a reader of our own; int8 gives what its matrices and scales come to."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(golden.bundle.encoder("fp32"))
    known = {item.name: numpy_helper.to_array(item) for item in graph.graph.initializer}
    found = encoder_weights(golden.bundle)
    assert found.keys() <= known.keys() and len(found) > 100
    assert all(np.array_equal(found[name], known[name]) for name in found)
    rounded = read_initializers(golden.bundle.encoder("int8"))
    name = "layers.0.feed1.0.weight"
    close = rounded[f"{name}.int8"] * rounded[f"{name}.scale"]
    assert np.abs(close - found[name]).max() <= rounded[f"{name}.scale"].max() / 2 * 1.001


def test_large_graphs_keep_their_weights_beside_them(toy_bundle: Bundle, tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "encoder.onnx"
    graph = onnx.load(toy_bundle.encoder("fp32"))
    onnx.save(graph, path, save_as_external_data=True, location="encoder.onnx.data", size_threshold=0)
    assert os.path.getsize(path) < 200_000
    here, beside = read_initializers(toy_bundle.encoder("fp32")), read_initializers(path)
    assert here.keys() == beside.keys() and all(np.array_equal(here[name], beside[name]) for name in here)


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_what_is_no_graph_is_refused(toy_bundle: Bundle, tmp_path: Path, damage: str) -> None:
    content = toy_bundle.encoder("fp32").read_bytes()
    path = tmp_path / "encoder.onnx"
    path.write_bytes({"cut": content[: len(content) // 2], "text": b"no graph at all, but text", "empty": b""}[damage])
    with pytest.raises(BundleError, match="convert the model again"):
        read_initializers(path)

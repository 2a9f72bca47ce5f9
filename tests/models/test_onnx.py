"""The onnxruntime backend: NeMo's numbers and tokens, and rows that know nothing of one another."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from nemostream.encoders import Floats
from nemostream.encoders.onnx import OnnxBackend, OnnxRows
from nemostream.errors import BundleError, StepFailed, UnsupportedChunk
from nemostream.greedy import CtcDecoder, Decoder, RnntDecoder
from nemostream.models.bundle import Bundle
from nemostream.models.convert import refuse_fused
from nemostream.models.quantize import FUSED
from tests.models.conftest import Golden
from tests.models.streaming import chunk_of, encode, log_mel
from tests.speech import utterance

TOLERANCE = 5e-5


def make_rows(bundle: Bundle, frames: int, capacity: int, spare: int = 0, precision: str = "fp32") -> OnnxRows:
    return OnnxBackend(bundle, precision, threads=1).rows(frames, capacity, spare)


def noise(bundle: Bundle, frames: int, seed: int = 0) -> Floats:
    """Log-mel of chunks of noise, (8T, n_mels)."""
    return np.random.RandomState(seed).randn(8 * frames, bundle.info.mel.n_mels).astype(np.float32) * 2 - 8


def test_encoder_equals_nemo_offline(golden: Golden) -> None:
    for lookahead in golden.lookaheads:
        rows = make_rows(golden.bundle, lookahead + 1, 5, spare=6)
        found = encode(rows, golden.mels, starts=[0, 2, 5], order=np.random.RandomState(0))
        for mine, nemo in zip(found, golden.encoded(lookahead), strict=True):
            assert mine.shape == nemo.shape
            assert np.abs(mine - nemo).max() < TOLERANCE


def test_tokens_and_frames_equal_nemo_on_100_utterances(golden: Golden) -> None:
    bundle = golden.bundle
    mels = [log_mel(bundle, utterance(seed)[1]) for seed in range(100)]
    for lookahead in golden.lookaheads:
        rows = make_rows(bundle, lookahead + 1, 100)
        encoded = encode(rows, mels, starts=[i % 5 for i in range(100)])
        decoders: dict[str, Decoder] = {
            "rnnt": RnntDecoder(bundle.weights, bundle.info.max_symbols, 100),
            "ctc": CtcDecoder(bundle.weights, 100),
        }
        longest = max(map(len, encoded))
        batch = np.stack([np.pad(e, ((0, longest - len(e)), (0, 0))) for e in encoded])
        for name, decoder in decoders.items():
            for row in range(100):
                decoder.reset(row)
            found = decoder.step(np.arange(100), batch, np.array([len(e) for e in encoded]))
            assert [[(t.id, t.frame) for t in tokens] for tokens in found] == golden.tokens(name, lookahead)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("frames", [1, 14])
def test_a_row_does_not_hear_its_neighbours(random_bundle: Bundle, precision: str, frames: int) -> None:
    """Beside silence, noise at full scale and absurd values, at the same batch size: the same bits."""
    neighbours = {
        "silence": np.full((8 * frames, 128), np.log(2.0**-24), np.float32),
        "noise": np.abs(noise(random_bundle, frames, 1)) + 5,
        "absurd": np.full((8 * frames, 128), 1e4, np.float32),
    }
    heard = []
    for place, neighbour in itertools.product((0, 2), neighbours.values()):
        rows = make_rows(random_bundle, frames, 4, precision=precision)
        out = []
        for k in range(70 // frames):
            batch = np.stack([neighbour] * 4)
            batch[place] = noise(random_bundle, frames, 100 + k)
            out.append(rows.step(4, batch)[place].copy())
            rows.commit(np.arange(4))
        heard.append(np.concatenate(out))
    assert all(np.array_equal(heard[0], other) for other in heard[1:])


def test_int8_stays_close_to_fp32(golden: Golden) -> None:
    for lookahead in golden.lookaheads:
        exact, rounded = (
            np.concatenate(encode(make_rows(golden.bundle, lookahead + 1, 3, precision=precision), golden.mels))
            for precision in ("fp32", "int8")
        )
        assert not np.array_equal(exact, rounded)
        cosine = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
        assert cosine.min() > 0.99


def test_the_optimizer_does_not_join_the_two_scales(toy_bundle: Bundle, tmp_path: Path) -> None:
    """And the trap still snaps: where the scales are multiplied with one another first, behind a product of integers,
    they are joined, and refused."""
    refuse_fused(toy_bundle.encoder("int8"))
    graph = onnx.load(toy_bundle.encoder("int8"))
    nodes = []
    for node in graph.graph.node:
        if node.op_type == "Mul" and node.input[0].endswith(".column"):
            x = node.input[1].removesuffix(".scale")
            product = nodes.pop()
            assert product.op_type == FUSED and product.output[0] == node.input[0]
            rounded, weight, _, column, zero = product.input
            y = node.output[0]
            nodes += [
                onnx.helper.make_node("MatMulInteger", [rounded, weight, zero], [f"{y}.sum"]),
                onnx.helper.make_node("Cast", [f"{y}.sum"], [f"{y}.float"], to=onnx.TensorProto.FLOAT),
                onnx.helper.make_node("Mul", [f"{x}.scale", column], [f"{y}.joined"]),
                onnx.helper.make_node("Mul", [f"{y}.float", f"{y}.joined"], [y]),
            ]
            continue
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    onnx.save(graph, tmp_path / "fused.onnx")
    with pytest.raises(BundleError, match="joins the scales"):
        refuse_fused(tmp_path / "fused.onnx")


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


@pytest.mark.parametrize("frames", [1, 2, 7, 14])
def test_undone_commits_leave_no_trace(toy_bundle: Bundle, frames: int) -> None:
    """At every chunk of a stream that is longer than the left context: commit up to `spare` frames, go back, go on."""
    mel = log_mel(toy_bundle, utterance(1000, 13)[1])
    tentative = 4 if frames < 4 else 1
    spare = tentative * frames
    plain, undone = make_rows(toy_bundle, frames, 2, spare), make_rows(toy_bundle, frames, 2, spare)
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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_streams_join_and_leave_without_a_trace(toy_bundle: Bundle, precision: str) -> None:
    """Rows stay dense: a leaver's row is filled by the last one. Each stream still hears only itself."""
    rng = np.random.RandomState(4)
    mels = {s: log_mel(toy_bundle, utterance(2000 + s)[1])[: 16 * rng.randint(4, 30)] for s in range(12)}
    alone = {s: encode(make_rows(toy_bundle, 2, 1, precision=precision), [mel])[0] for s, mel in mels.items()}
    rows = make_rows(toy_bundle, 2, 5, precision=precision)
    waiting, live = list(mels), list[int]()  # live[row] is a stream
    at: dict[int, int] = {}
    found: dict[int, list[Floats]] = {s: [] for s in mels}
    while waiting or live:
        while waiting and len(live) < 5 and rng.rand() < 0.4:
            rows.reset(len(live))
            live.append(waiting.pop(0))
            at[live[-1]] = 0
        if not live:
            continue
        encoded = rows.step(len(live), np.stack([chunk_of(mels[s], at[s], 2) for s in live]))
        ready = [row for row in range(len(live)) if rng.rand() < 0.7]
        for row in ready:
            found[live[row]].append(encoded[row].copy())
            at[live[row]] += 1
        rows.commit(np.array(ready, int))
        for row in reversed(range(len(live))):
            if at[live[row]] * 2 >= len(alone[live[row]]):
                rows.move(len(live) - 1, row)
                live[row] = live[-1]
                live.pop()
    for s in mels:
        # Batch size may move the last bits in fp32; int8 may round one of them to the next step.
        tolerance = 1e-4 if precision == "fp32" else 0.15
        assert np.abs(np.concatenate(found[s]) - alone[s]).max() < tolerance


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


def test_what_cannot_run_is_said_in_one_sentence(toy_bundle: Bundle) -> None:
    backend = OnnxBackend(toy_bundle, "fp32", 1)
    with pytest.raises(UnsupportedChunk, match="no chunk of 3 frames; it offers 1, 2, 7, 14"):
        backend.rows(3, 1, 0)
    with pytest.raises(BundleError, match="no fp16 encoder"):
        OnnxBackend(toy_bundle, "fp16", 1)
    with pytest.raises(ValueError, match="mel is"):
        backend.rows(1, 2, 0).step(1, np.zeros((1, 9, 80), np.float32))

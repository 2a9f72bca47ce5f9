"""A sherpa-onnx folder as a model: NeMo's own export of the toy, in fp32 and in sherpa-onnx's int8."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nemostream.encoders.sherpa import SherpaBackend
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import BundleError, KeytermsError, SnapshotError, UnsupportedChunk
from nemostream.greedy import RnntDecoder
from nemostream.memory import model_bytes
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.models.sherpa import find, is_sherpa
from nemostream.models.slaney import filters, window
from nemostream.protocol import Samples
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver, load
from tests.engine.test_golden import DATA, spoken
from tests.engine.test_models import Owner
from tests.sherpa import PARTS, write_sherpa

PRECISIONS = ["fp32", "int8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, toy_nemo: Path) -> Path:
    return write_sherpa(tmp_path_factory.mktemp("sherpa"), toy_nemo, int8=True)


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Model]:
    return {precision: load(folder, precision) for precision in PRECISIONS}


@pytest.fixture(params=PRECISIONS)
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A folder of fp32 links to break."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (*(f"{part}.onnx" for part in PARTS), "tokens.txt"):
        (copy / name).symlink_to(folder / name)
    return copy


def backend(model: Model) -> SherpaBackend:
    assert isinstance(model.backend, SherpaBackend)
    return model.backend


def test_tokens_are_those_of_nemo_offline(models: dict[str, Model]) -> None:
    """Not always at its frames: the graph's first chunk is not exact."""
    with np.load(DATA / "golden_toy.npz") as golden:
        ends = np.cumsum(golden["rnnt.1.counts"])[:-1]
        ids, frames = np.split(golden["rnnt.1.ids"], ends), np.split(golden["rnnt.1.frames"], ends)
    driver = Driver(models["fp32"], max_streams=16)
    for u in range(16):
        driver.open(u)
        driver.push(u, spoken(0, 16)[u], run=False)
    driver.run()
    for u in range(16):
        assert [t.id for t in driver.tokens[u]] == ids[u].tolist()
        assert np.abs(np.array([t.frame for t in driver.tokens[u]]) - frames[u]).max(initial=0) <= 1


def test_front_end_is_that_of_the_checkpoint(toy_bundle: Bundle, models: dict[str, Model]) -> None:
    np.testing.assert_allclose(filters(80), toy_bundle.weights["mel.filters"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(window(400), toy_bundle.weights["mel.window"], rtol=0, atol=1e-6)
    assert models["fp32"].bundle.tokens == toy_bundle.tokens


def test_cutting_the_input_changes_nothing(model: Model) -> None:
    samples, rng = utterance(3), np.random.default_rng(0)
    whole, cut = Driver(model), Driver(model)
    for driver in (whole, cut):
        driver.open(1)
    whole.push(1, samples)
    at = 0
    while at < len(samples):
        size = int(rng.integers(1, 6000))
        cut.push(1, samples[at : at + size])
        at += size
    for driver in (whole, cut):
        driver.close(1)
    assert whole.tokens[1] == cut.tokens[1] and whole.text(1) == cut.text(1) != ""


def test_text_does_not_depend_on_batch_neighbours(model: Model) -> None:
    driver = Driver(model)
    audio = [(1.0 if u % 2 else 0.05) * utterance(20 + u, 4) for u in range(6)]
    for u, samples in enumerate(audio):
        driver.open(u)
        driver.push(u, samples[: 3000 * u], run=False)
    driver.run()
    for u, samples in enumerate(audio):
        driver.push(u, samples[3000 * u :], run=False)
    for u in range(6):
        driver.close(u, run=False)
    driver.run()
    for u, samples in enumerate(audio):
        assert driver.text(u) == offline(model, samples)


def test_rows_of_a_quantised_graph_run_alone(models: dict[str, Model]) -> None:
    """Its scales are those of a whole tensor: a loud neighbour would change every row."""
    assert backend(models["fp32"]).batched and not backend(models["int8"]).batched
    rows = backend(models["int8"]).rows(2, 3, 0)
    mel = np.random.default_rng(0).normal(-8, [[[1]], [[3]], [[9]]], (3, 16, 80)).astype(np.float32)
    together = rows.step(3, mel).copy()
    for row in range(3):
        np.testing.assert_array_equal(rows.step(np.array([row]), mel[row : row + 1])[0], together[row])


def test_nobody_rides_along_where_a_batch_saves_nothing(model: Model) -> None:
    driver = Driver(model)
    for u in range(5):
        driver.open(u)
    (group,) = driver.core.groups.values()
    assert not group.load.dense


def test_a_flush_is_answered_and_forgotten(model: Model) -> None:
    """What a flush runs beyond the audio must leave no trace, neither in the encoder's row nor in the decoder's."""
    samples = utterance(5, 6)
    plain, flushed = Driver(model), Driver(model)
    for driver in (plain, flushed):
        driver.open(1)
    half = len(samples) // 2
    plain.push(1, samples)
    flushed.push(1, samples[:half])
    flushed.flush(1, 7)
    answer = flushed.finals(1)[-1]
    assert answer.flush_id == 7 and answer.text
    flushed.push(1, samples[half:])
    plain.close(1)
    flushed.close(1)
    assert flushed.tokens[1] == plain.tokens[1]


def test_undoing_any_number_of_commits_is_exact(model: Model) -> None:
    rows = backend(model).rows(2, 3, 0)
    mel = np.random.default_rng(1).normal(-8, 3, (8, 3, 16, 80)).astype(np.float32)
    every = np.arange(3)
    for chunk in mel[:3]:
        rows.step(3, chunk)
        rows.commit(every)
    saved, before = rows.save(1), rows.export(1)
    other = rows.step(3, mel[3]).copy()
    for chunk in mel[3:6]:
        rows.step(3, chunk)
        rows.commit(every)
    rows.step(3, mel[6])
    rows.commit(np.array([0, 2]), [(1, saved)])
    after = rows.export(1)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    np.testing.assert_array_equal(rows.step(np.array([1]), mel[3, 1:2])[0], rows.step(np.array([1]), mel[3, 1:2])[0])
    np.testing.assert_allclose(rows.step(np.array([1]), mel[3, 1:2])[0], other[1], atol=1e-5)


def test_a_row_goes_on_elsewhere_and_damage_is_refused(model: Model) -> None:
    rows, others = backend(model).rows(2, 2, 0), backend(model).rows(2, 1, 0)
    mel = np.random.default_rng(2).normal(-8, 3, (4, 1, 16, 80)).astype(np.float32)
    for chunk in mel[:3]:
        rows.step(1, chunk)
        rows.commit(np.array([0]))
    saved = rows.export(0)
    others.check(saved)
    others.load(0, saved)
    rows.move(0, 1)
    wanted = rows.step(1, mel[3]).copy()
    np.testing.assert_array_equal(others.step(1, mel[3]), wanted)
    np.testing.assert_array_equal(rows.step(np.array([1]), mel[3]), wanted)
    with pytest.raises(SnapshotError, match="71 frames"):
        others.check({**saved, "length": np.array(71)})
    with pytest.raises(SnapshotError, match="time"):
        others.check({**saved, "time": saved["time"][:1]})


def test_decoding_is_that_of_the_checkpoint_with_keyterms_too(
    folder: Path, toy_bundle: Bundle, toy_nemo: Path, models: dict[str, Model]
) -> None:
    """The same frames, and every other stream with terms, for which the folder needs the tokenizer."""
    with pytest.raises(KeytermsError, match="tokenizer"):
        models["fp32"].keyterms.tree(["hello"])
    tree = load(toy_bundle.path).keyterms.tree(["stop", "please call me"])
    info = toy_bundle.info
    ours = models["fp32"].decoder("rnnt", 4)
    theirs = RnntDecoder(toy_bundle.weights, info.max_symbols, 4)
    rng, rows = np.random.default_rng(3), np.arange(4)
    said = 0
    for decoder in (ours, theirs):
        for row in range(4):
            decoder.reset(row)
            decoder.boost(row, tree if row % 2 else None)
    for _ in range(20):
        encoded = rng.normal(0, 1.5, (4, 2, info.encoder.d_model)).astype(np.float32)
        frames = rng.integers(0, 3, 4)
        found, wanted = ours.step(rows, encoded, frames), theirs.step(rows, encoded, frames)
        assert [[t[:2] for t in row] for row in found] == [[t[:2] for t in row] for row in wanted]
        confidences = [[t.confidence for row in tokens for t in row] for tokens in (found, wanted)]
        np.testing.assert_allclose(*confidences, atol=1e-4)
        said += len(confidences[0])
    assert said > 20


def test_keyterms_work_with_a_tokenizer_beside(copied: Path, toy_nemo: Path) -> None:
    with tarfile.open(toy_nemo) as archive:
        (member,) = [m for m in archive if m.name.endswith("tokenizer.model")]
        file = archive.extractfile(member)
        assert file is not None
        (copied / "tokenizer.model").write_bytes(file.read())
    assert load(copied).keyterms.tree(["hello world"]) is not None


def test_int8_is_chosen_where_there_is_a_choice(folder: Path, copied: Path) -> None:
    assert find(folder, None).precision == "int8" and find(folder, "fp32").encoder.name == "encoder.onnx"
    assert find(copied, None).precision == "fp32"
    with pytest.raises(BundleError, match="holds fp32, not int8"):
        find(copied, "int8")
    (copied / "encoder.onnx").rename(copied / "encoder.int8.onnx")
    assert find(copied, None).decoder.name == "decoder.onnx"  # of the other precision: there is none of its own


def test_another_file_is_another_model(folder: Path, copied: Path, models: dict[str, Model]) -> None:
    assert load(copied).bundle.hash == models["fp32"].bundle.hash
    (copied / "decoder.onnx").unlink()
    shutil.copy(folder / "decoder.int8.onnx", copied / "decoder.onnx")
    assert load(copied).bundle.hash != models["fp32"].bundle.hash


def test_it_has_one_chunk_size_and_takes_any_language(model: Model) -> None:
    assert model.chunks_ms == [160] and model.language("fr-CA") == "fr-CA" and model.decoder_name(None) == "rnnt"
    with pytest.raises(UnsupportedChunk, match="it offers 160"):
        model.chunk_frames(80)
    with pytest.raises(BundleError, match="decodes with rnnt"):
        model.decoder_name("ctc")


def test_it_is_said_once_that_a_checkpoint_is_faster(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "nemostream"):
        load(copied)
    (record,) = caplog.records
    assert ".nemo of the same model is faster" in record.getMessage() and str(copied) in record.getMessage()


def test_an_engine_serves_it_within_its_memory(folder: Path, models: dict[str, Model]) -> None:
    size = model_bytes(folder, "fp32")
    assert size > sum((folder / f"{part}.onnx").stat().st_size for part in PARTS)
    config = EngineConfig(str(folder), "fp32", threads=1, max_streams=4, model_memory_mb=-(-size // (1 << 20)))
    engine = Engine(config)
    try:
        assert Owner(engine).text(1, None, utterance(1)) == offline(models["fp32"], utterance(1)) != ""
    finally:
        engine.close()


def test_the_command_transcribes_without_torch_or_onnx(folder: Path, tmp_path: Path, models: dict[str, Model]) -> None:
    file = tmp_path / "speech.wav"
    write_wav(file, utterance(1))
    code = (
        "import sys; from nemostream.__main__ import app\n"
        f"app(['transcribe', {str(file)!r}, '--model', {str(folder)!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'onnx', 'nemo'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *text, modules = done.stdout.splitlines()
    assert " ".join(text) == offline(models["int8"], utterance(1)) and modules == "[]"
    assert done.stderr.count("\n") == 1 and "is faster" in done.stderr


def write_wav(file: Path, samples: Samples) -> None:
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes((samples * 32767).astype("<i2").tobytes())


def edit(folder: Path, part: str, change: Callable[[dict[str, str]], object]) -> None:
    """Change a graph's metadata."""
    import onnx

    file = folder / f"{part}.onnx"
    graph = onnx.load(str(file.resolve()))
    metadata = {prop.key: prop.value for prop in graph.metadata_props}
    change(metadata)
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, metadata)
    file.unlink()
    onnx.save(graph, str(file))


@pytest.mark.parametrize("name", ["tokens.txt", "encoder.onnx", "decoder.onnx", "joiner.onnx"])
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    assert is_sherpa(copied)
    refused(copied, f"{name.replace('.onnx', '*.onnx')} is missing")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalize_type": "per_feature"}, "normalize_type 'per_feature' needs the whole recording"),
        ({"subsampling_factor": "4"}, "subsampling_factor 4 is not 8"),
        ({"window_size": "16"}, "window_size of 16 with a chunk_shift of 16"),
        ({"window_size": "21", "chunk_shift": "12"}, "window_size of 21 with a chunk_shift of 12"),
        ({"window_size": "65", "chunk_shift": "56"}, "does not do what its metadata says"),
        ({"cache_last_channel_dim1": "3"}, "does not do what its metadata says"),
        ({"cache_last_channel_dim2": "-1"}, "cache_last_channel_dim2 is '-1'"),
        ({"cache_last_time_dim3": ""}, "cache_last_time_dim3 is ''"),
        ({"vocab_size": "1024"}, "do not fit the encoder's vocab_size of 1024"),
        ({"window_size": None, "model_type": "zipformer2"}, "no encoder of a streaming NeMo transducer but zipformer2"),
        ({"window_size": None, "model_type": None}, "no encoder of a streaming NeMo transducer but a graph that says"),
    ],
)
def test_metadata_that_cannot_run_here_is_refused(copied: Path, change: dict[str, str | None], said: str) -> None:
    def changed(metadata: dict[str, str]) -> None:
        metadata |= {key: value for key, value in change.items() if value is not None}
        for key in [key for key, value in change.items() if value is None]:
            del metadata[key]

    edit(copied, "encoder", changed)
    refused(copied, said)


def test_graphs_of_another_kind_are_refused(folder: Path, copied: Path) -> None:
    import onnx

    encoder = onnx.load(str(folder / "encoder.onnx"))
    prompt = onnx.helper.make_tensor_value_info("prompt_index", onnx.TensorProto.INT64, ["B"])
    encoder.graph.input.append(prompt)
    replace(copied, "encoder.onnx", encoder.SerializeToString())
    refused(copied, "it takes a language prompt")
    replace(copied, "encoder.onnx", (folder / "joiner.onnx").read_bytes())
    refused(copied, "no encoder of a streaming NeMo transducer")
    replace(copied, "encoder.onnx", b"no graph")
    refused(copied, "cannot load this graph")
    replace(copied, "encoder.onnx", (folder / "encoder.onnx").read_bytes())
    replace(copied, "decoder.onnx", (folder / "joiner.onnx").read_bytes())
    refused(copied, "not the LSTM predictor")
    replace(copied, "decoder.onnx", (folder / "decoder.onnx").read_bytes())
    replace(copied, "joiner.onnx", (folder / "decoder.onnx").read_bytes())
    refused(copied, "not the joint network")


def test_parts_of_two_models_are_refused(copied: Path) -> None:
    (copied / "encoder-2.onnx").symlink_to(copied / "encoder.onnx")
    refused(copied, "encoder-2.onnx and encoder.onnx could both be the encoder")
    (copied / "encoder-2.onnx").unlink()
    lines = (copied / "tokens.txt").read_text().splitlines()
    for broken, said in (
        (lines[:-1], "do not fit the encoder's vocab_size"),
        ([*lines[:-1], f"word {len(lines) - 1}"], "the last 'word'"),
        (lines[1:], "not numbered from 0"),
        (["hello", *lines[1:]], "not lines of a piece and its number"),
        ([], "not lines of a piece and its number"),
    ):
        replace(copied, "tokens.txt", "".join(f"{line}\n" for line in broken).encode())
        refused(copied, said)


def test_a_folder_that_is_none_of_it_is_no_bundle(tmp_path: Path) -> None:
    assert not is_sherpa(tmp_path)
    refused(tmp_path, "give a bundle folder")


def replace(folder: Path, name: str, content: bytes) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content)


def refused(folder: Path, said: str) -> None:
    """One sentence that names the place and says what to do."""
    with pytest.raises(BundleError) as caught:
        Model.load(folder, None, 1)
    message = str(caught.value)
    assert said in message and str(folder) in message and ";" in message and "\n" not in message

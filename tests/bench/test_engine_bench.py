"""The engine's benchmark runs, has all its columns, and its figures are computed: a wrong one shows."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import random_model
from bench.engine.__main__ import main
from bench.engine.agreement import Agreement, Reference, agreement, placed
from bench.engine.audio import Load
from bench.engine.measure import responses
from bench.engine.processes import Result
from bench.engine.roofline import step_work
from bench.engine.row import Row, slope
from bench.engine.slo import most_streams
from bench.speech import NOISE, conversation, sentences
from nemostream.greedy import RnntDecoder
from nemostream.mel import MelFilters
from nemostream.models.bundle import Bundle
from nemostream.models.checkpoint import FILTERS, WINDOW, read_checkpoint
from nemostream.models.decoder_weights import decoder_weights
from nemostream.protocol import SAMPLE_RATE
from tests.conftest import ROOT
from tests.speech import utterance


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.engine", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_row_has_every_column(toy_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    sizes = (
        "--streams",
        "3",
        "--chunk-ms",
        "160",
        "--seconds",
        "3.2",
        "--clients",
        "1",
        "--precision",
        "fp32",
        "--threads",
        "1",
    )
    done = _command("--model", str(toy_bundle.path), *sizes, "--json", str(out), "--png", str(tmp_path / "out.png"))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert row.keys() == {field.name for field in dataclasses.fields(Row)}
    assert row["agreement"]["streams"] == 3 and row["agreement"]["streams_equal"] == 1.0
    assert row["chunks"] >= 3 * 5 and row["response_p50"] > row["step_p50"] > 0
    assert row["refused"] == row["failed"] == row["unanswered"] == 0
    assert row["engine_cpu"] > 0 and row["client_cpu"] > 0 and row["rss_mb"] > 20 and 0 < row["roofline"] < 1
    assert (tmp_path / "out.png").stat().st_size > 10_000
    table = done.stdout.splitlines()
    assert len(table) == 3 and table[0].count("|") == table[2].count("|")


def test_a_batch_of_two_says_what_each_says_alone(toy_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    sizes = ("--batches", "2", "--uncapped", "--chunk-ms", "160", "--steps", "12", "--precision", "fp32")
    done = _command("--model", str(toy_bundle.path), *sizes, "--json", str(out))
    assert done.returncode == 0, done.stderr
    (batch,) = json.loads(out.read_text())["rows"]
    assert batch["agreement"]["streams_equal"] == 1.0 and batch["stream_mb"] > 0
    assert batch["per_stream"] == pytest.approx(batch["step_p50"] / 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--streams", "0"), "'0' is no list of whole numbers"),
        (("--model", "nothing"), "bench.engine: no model 'nothing'"),
        (("--random", "nothing"), "bench.engine: no shape 'nothing'"),
        (("--batches", "4"), "--uncapped"),
        (("--chunk-ms", "100"), "chunks of 100 ms are not whole blocks"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (1, 2) and sentence in capsys.readouterr().err.splitlines()[-1]


def test_a_corrupted_transcript_lowers_the_agreement(toy_bundle: Bundle) -> None:
    reference = Reference(toy_bundle.path, "onnx")
    alone = reference.tokens(0, utterance(3, 5)[1], 160)
    tokens = sorted(alone)
    assert len(tokens) >= 5 and reference.precision == "fp32"
    assert agreement([(alone, alone)]) == Agreement(1, 1.0, len(alone), 1.0)
    frame, nth, token = tokens[0]
    for spoilt in ([(frame, nth, token + 1), *tokens[1:]], [(frame + 1, nth, token), *tokens[1:]], tokens[1:]):
        found = agreement([(alone, alone), (alone, frozenset(spoilt))])
        assert found.streams_equal == 0.5 and found.tokens_equal == pytest.approx(1 - 1 / (2 * len(alone)))
    assert agreement([(alone, alone | {(999, 0, 1)})]).tokens_equal < 1


def test_the_second_token_of_a_frame_is_another_one() -> None:
    assert placed([(3, 7), (3, 7)]) == {(3, 0, 7), (3, 1, 7)}


def _result(load: Load, wait: float, answered: int) -> Result:
    """One stream whose first `answered` chunks were out `wait` seconds after the block that completed them."""
    sent = np.arange(load.blocks) * load.block_ms / 1000
    numbers = np.arange(answered)
    out = sent[load.completing(numbers)] + wait
    chunks = np.stack([np.full(answered, 2), np.ones(answered), numbers, out], 1)
    empty = np.zeros((0, 4))
    return Result([], {0: sent}, {0: (2, 1)}, empty, chunks, empty, 0.0, 0.0, 0.0, 0.0, float(sent[-1]))


def test_a_response_is_from_the_last_needed_sample_to_the_events() -> None:
    load = Load(1, 160, 80, 4.0)
    _, response = responses(load, _result(load, 0.05, 25))
    assert len(response) == 25 and response == pytest.approx(50)


def test_a_chunk_that_was_never_run_is_late() -> None:
    load = Load(1, 160, 80, 4.0)
    _, response = responses(load, _result(load, 0.05, 10))
    assert (response > 160).sum() >= 13


def test_drift_is_the_slope_of_the_response() -> None:
    seconds = np.linspace(0, 10, 50)
    assert slope(seconds, 40 + 3 * seconds) == pytest.approx(3)
    assert slope(seconds, np.full(50, 40.0)) == pytest.approx(0)


def _row(response_p95: float, drift: float = 0.0, failed: int = 0) -> Row:
    values = {field.name: 0 for field in dataclasses.fields(Row)}
    values |= {"chunk_ms": 160, "response_p95": response_p95, "drift": drift, "failed": failed, "seconds": 20}  # type: ignore[dict-item]
    return Row(**values)  # type: ignore[arg-type]


def test_the_search_finds_the_most_streams() -> None:
    for limit in (0, 1, 7, 100, 1500):
        found = most_streams(lambda n, limit=limit: _row(150.0 if n <= limit else 170.0), 1.0)  # type: ignore[misc]
        assert limit * 0.95 <= found <= limit
    assert most_streams(lambda n: _row(100.0), 0.5) == 0


def test_a_row_that_drifts_or_fails_is_not_within() -> None:
    assert _row(150.0).within(1.0)
    assert not _row(150.0, drift=1.0).within(1.0) and not _row(150.0, failed=1).within(1.0)


def test_the_roofline_counts_the_weights_once_and_the_rows_each(toy_bundle: Bundle) -> None:
    one, two = (step_work(toy_bundle.info, 2, rows, "fp32") for rows in (1, 2))
    assert two.products == 2 * one.products and one.bytes < two.bytes < 2 * one.bytes
    encoder = toy_bundle.info.encoder
    assert one.products > 2 * 2 * 23 * encoder.d_model**2 * encoder.n_layers * 0.5


def test_a_random_model_is_read_and_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("SHARED", str(tmp_path))  # the test clips will do
    sentences.cache_clear()
    path = random_model.write("embedded", tmp_path / "random.nemo")
    checkpoint = read_checkpoint(path)
    assert checkpoint.config.encoder.d_model == 144 and len(checkpoint.config.tokens) == 256
    model = checkpoint.model().requires_grad_(False)
    mels = MelFilters(checkpoint.state[FILTERS][0].numpy(), checkpoint.state[WINDOW].numpy())
    quiet = (NOISE * np.random.default_rng(9).standard_normal(12 * SAMPLE_RATE)).astype(np.float32)
    spoken: list[int] = []
    for samples in (conversation(9, 12.0, share=1.0), quiet):
        mel = torch.from_numpy(mels.whole(samples))
        encoded, _ = model.encoder(mel[None], torch.tensor([len(mel)]), 1)
        decoder = RnntDecoder(decoder_weights(checkpoint, model), 10, 1)
        decoder.reset(0)
        (tokens,) = decoder.step(np.zeros(1, np.intp), encoded.numpy(), np.array([encoded.shape[1]]))
        spoken.append(len(tokens))
    sentences.cache_clear()
    assert 12 < spoken[0] < 12 * 12 and spoken[1] < spoken[0] / 2

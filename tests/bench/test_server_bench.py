"""The load sweep runs against the real gateway, all its columns filled, and its figures are computed, not made up."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.server import report, tracks
from bench.server.__main__ import main
from bench.server.client import GOLDEN, Ears, Outcome
from bench.server.row import LAG_MS, Load, Row, row_of
from bench.server.tracks import load, make, save
from nemostream.protocol import SAMPLE_RATE
from nemostream_agent.protocols.talk import Heard
from tests.conftest import ROOT

QUIET = Load(client_lag_ms=(1.0, 5.0), client_cpu=0.1)


@pytest.fixture(autouse=True)
def no_corpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the tests' clips say is known."""
    monkeypatch.setenv("SHARED", str(ROOT / "tests"))
    tracks.pool.cache_clear()
    yield
    tracks.pool.cache_clear()


def test_a_sweep_of_our_gateway_fills_its_row(tmp_path: Path) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    sizes = ["--streams", "2", "--seconds", "4", "--spread", "0.5", "--tracks", "2", "--refused-after", "2"]
    sizes += ["--json", str(out), "--png", str(picture)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.server", "--serve", *sizes, "--", "--max-streams", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert row.keys() == {field.name for field in dataclasses.fields(Row)}
    assert (row["streams"], row["refused"], row["errors"]) == (2, 0, {})
    assert row["wer"] == row["cer"] == 0 and row["identical"] == 1
    assert 0 < row["first_p50"] <= row["first_p99"] and 0 < row["last_p50"] <= row["last_p99"]
    assert 0 < row["throughput"] <= 2
    assert row["load"]["mean_batch"] >= 1 and row["load"]["cpu"].keys() == {"gateway", "engine"}
    assert len(row["load"]["refused_ms"]) == 2 and row["load"]["let_in"] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"{report.heading()}\n| 2 | 0.0% | 0.0% | 100.0% |" in done.stdout
    assert "2 streams on top were refused within" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ws://127.0.0.1:9/ws", "--tracks", "1", "--seconds", "5"], "cannot be reached: Connection refused"),
        (["http://127.0.0.1:9/transcribe"], "names no protocol"),
        (["ws://127.0.0.1:9/ws", "--seconds", "2.1"], "no clip fits into 2.1 s"),
    ],
)
def test_what_goes_wrong_is_one_sentence(arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    sentence = str(ended.value)
    assert sentence.startswith("bench.server: ") and said in sentence and "\n" not in sentence


def test_a_track_has_its_length_and_ends_with_speech(tmp_path: Path) -> None:
    made = [make(seed, 12.0) for seed in (1, 2)]
    for track in made:
        assert len(track.pcm) == 12 * SAMPLE_RATE and track.text
        loud = np.abs(track.pcm.astype(int))
        quiet = loud[: SAMPLE_RATE // 10].max()  # the pause in front
        assert loud[: track.speech_at].max() < loud.max() / 4
        assert loud[track.speech_at] > 5 * quiet and loud[-SAMPLE_RATE // 4 :].max() > 5 * quiet
    assert make(1, 12.0).pcm.tobytes() == made[0].pcm.tobytes() != made[1].pcm.tobytes()
    save(tmp_path / "tracks.npz", made)
    for saved, track in zip(load(tmp_path / "tracks.npz"), made, strict=True):
        assert np.array_equal(saved.pcm, track.pcm) and saved.speech_at == track.speech_at


def test_starts_are_spread_evenly_whatever_the_number_of_streams_is() -> None:
    for streams in (1, 10, 50, 100):
        starts = sorted(i * GOLDEN % 1 for i in range(streams))
        assert max(np.diff([*starts, starts[0] + 1])) < 3 / streams


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_latencies_count_from_where_they_are_said_to() -> None:
    clock, outcome = Clock(), Outcome(0)
    ears = Ears(outcome, speech_due=10.0, clock=clock)
    for at, heard in (
        (9.0, Heard("noise", False)),  # before anybody spoke
        (10.2, Heard("", False)),
        (10.5, Heard("one", False)),
        (11.0, Heard("one two", True)),
    ):
        clock.now = at
        ears.hear(heard)
    assert (outcome.first, outcome.last) == (0.5, None)
    clock.now = 20.0
    ears.ended()
    for at, heard in ((20.25, Heard("three", False)), (20.5, Heard("three", True)), (20.75, Heard("", True))):
        clock.now = at
        ears.hear(heard)
    clock.now = 21.0
    ears.over()
    assert (outcome.text, outcome.first, outcome.last, outcome.over) == ("one two three", 0.5, 0.5, 21.0)


def test_a_stream_that_had_said_all_before_its_end_is_done_when_the_server_says_so() -> None:
    clock, outcome = Clock(), Outcome(0)
    ears = Ears(outcome, speech_due=0.0, clock=clock)
    ears.hear(Heard("one", True))
    ears.ended()
    clock.now = 0.25
    ears.over()
    assert outcome.last == 0.25


def outcome(stream: int, text: str, **more: object) -> Outcome:
    told = {"first": 0.1 * (stream + 1), "last": 0.5, "began": 100.0, "over": 110.0}
    return Outcome(stream, text, **{**told, **more})  # type: ignore[arg-type]


def test_a_row_counts_words_streams_and_time() -> None:
    row = row_of(
        1,
        [
            outcome(0, "one two"),
            outcome(1, "three"),
            outcome(2, "one two"),
            outcome(3, "", error="closed 1011", why="it failed", first=None, last=None),
            outcome(4, "", error="refused", why="full", first=None, last=None),
        ],
        expected=["one two", "three four"],
        alone=["one two", "three four"],
        seconds=9.0,
        load=QUIET,
    )
    assert row.streams == 5 and row.refused == 1 and row.errors == {"closed 1011": 1} and row.why == "it failed"
    assert row.wer == 3 / 8  # one word of stream 1, both of stream 3; who was refused lost none
    assert row.identical == 2 / 4
    assert (row.first_p50, row.last_p50) == (200.0, 500.0)
    assert row.throughput == 2.7  # three streams of 9 s in 10
    assert row.valid


def test_a_row_that_the_clients_were_too_slow_for_does_not_count(tmp_path: Path) -> None:
    late = Load(client_lag_ms=(LAG_MS + 1, LAG_MS + 1), client_cpu=0.1)
    busy = Load(client_lag_ms=(1.0, 1.0), client_cpu=0.99)
    rows = [row_of(1, [outcome(0, "a")], ["a"], ["a"], 1.0, held) for held in (late, busy, QUIET)]
    assert [row.valid for row in rows] == [False, False, True]
    assert report.line(rows[:1]).endswith("| no: the clients were late |")
    assert report.line(rows).endswith("| yes |")  # by the one round that counts
    for shown in (rows, rows[:2]):  # a picture of what counts, be it nothing
        report.write_png(tmp_path / "out.png", shown, "streams")
        assert (tmp_path / "out.png").stat().st_size > 10_000
        (tmp_path / "out.png").unlink()


def test_rounds_stand_together() -> None:
    rows = [row_of(n, [outcome(0, "a", first=first)], ["a"], ["a"], 1.0, QUIET) for n, first in enumerate((3, 1, 2))]
    assert report.spread(rows, lambda row: row.first_p50, "{:.0f}") == "2000 (1000 - 3000)"
    assert report.spread(rows, lambda row: row.load.mean_batch, "{:.0f}") == "-"
    assert report.spread(rows, lambda row: row.last_p50, "{:.0f}") == "500"


def test_a_refusal_of_everybody_is_a_row_too() -> None:
    row = row_of(1, [outcome(0, "", error="refused", why="full")], ["a"], ["a"], 1.0, QUIET)
    assert (row.refused, row.wer, row.identical, row.throughput) == (1, None, None, 0.0)
    assert report.line([row]).startswith("| 1 | - | - | - |")

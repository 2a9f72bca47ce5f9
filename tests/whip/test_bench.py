"""The measurement of WHIP sessions runs against the real gateway, and its figures are computed, not made up."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.server import tracks
from bench.whip import report
from bench.whip.__main__ import main
from bench.whip.inbox import Inbox, Message
from bench.whip.load import Outcome, Weather, delays, impair
from bench.whip.plan import Plan, load, make, save
from bench.whip.row import Cost, Row, row_of
from bench.whip.talk import PACKET_SECONDS
from tests.conftest import ROOT

QUIET = Cost(cpu={"gateway": 0.02}, rss_mb={"gateway": 140.0}, client_cpu=0.1, missing_seconds=0.3)


@pytest.fixture(autouse=True)
def no_corpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the tests' clips say is known."""
    monkeypatch.setenv("SHARED", str(ROOT / "tests"))
    tracks.pool.cache_clear()
    yield
    tracks.pool.cache_clear()


def test_a_run_fills_its_row(tmp_path: Path) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    sizes = ["--sessions", "2", "--seconds", "4", "--spread", "0.5", "--loss", "5", "--on-top", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.whip", *sizes, "--json", str(out), "--png", str(picture)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert row.keys() == {"wer", *(field.name for field in dataclasses.fields(Row))}
    assert (row["sessions"], row["errors"]) == (2, {}) and 0 <= row["wer"] < 1
    assert 0 < row["caption_p50"] <= row["caption_p95"] < row["final_p95"]
    assert row["before"] > 0 < row["after"] and 0 < row["connected_p50"] <= row["connected_max"]
    assert 0 < row["lost"] < row["sent"] and 0.5 < row["lost_audio"] <= 2
    cost = row["cost"]
    assert cost["cpu"].keys() == cost["rss_mb"].keys() == {"gateway", "engine"} and min(cost["cpu"].values()) > 0
    assert len(cost["refused_ms"]) == 2 and cost["retry_after"] and cost["let_in"] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"{report.heading()}\n| 2 | 5 % lost | " in done.stdout
    assert "2 POSTs above the limit got 503, each with Retry-After, within" in done.stdout


@pytest.mark.parametrize("arguments", [["--loss", "x"], ["--loss", "95"], ["--seconds", "3"], ["--burst", "0.5"]])
def test_what_means_nothing_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_plan_has_its_track_between_the_sentences(tmp_path: Path) -> None:
    plan = make(1, 6.0)
    assert plan.text and plan.begins < plan.ends < plan.seconds
    assert plan.ends - plan.begins == pytest.approx(6.5)
    assert make(1, 6.0) == plan != make(2, 6.0)
    save(tmp_path / "plans", [plan])
    assert load(tmp_path / "plans") == [plan]


def test_packets_are_lost_in_the_track_alone() -> None:
    plan = make(1, 6.0)
    fate = impair(plan, Weather(loss=0.5), seed=1)
    lost = [number * PACKET_SECONDS for number in range(len(plan.packets)) if not fate(number)]
    assert plan.begins <= min(lost) and max(lost) < plan.ends and len(lost) > 100


def caption(kind: str, end: float, at: float, speaker: str = "a") -> Message:
    return Message(at, {"type": kind, "speaker": speaker, "end": end})


def test_delays_count_from_when_the_packet_was_due_and_for_new_words_alone() -> None:
    inbox = Inbox()
    inbox.messages = [
        Message(100.0, {"type": "room"}),
        caption("interim", 0.99, 101.5),  # in the packet that is due at 1.00
        caption("interim", 0.99, 101.7),
        caption("interim", 9.0, 101.8, speaker="b"),
        caption("final", 1.0, 102.0),
        caption("interim", 2.0, 102.75),
    ]
    shown = delays(inbox, "a", 100.0, "interim")
    assert [(end, round(delay, 3)) for end, delay in shown] == [(0.99, 0.5), (2.0, 0.75)]
    assert [(end, round(delay, 3)) for end, delay in delays(inbox, "a", 100.0, "final")] == [(1.0, 1.0)]


PLAN = Plan([b""] * 500, begins=2.0, ends=8.0, text="one two three four")


def outcome(session: int, text: str, **more: Any) -> Outcome:
    words = [(word, 2.0 + i, 2.5 + i) for i, word in enumerate(text.split())]
    told: dict[str, Any] = {"shown": [(1.0, 0.2), (3.0, 0.9), (9.0, 0.3)], "final": [(3.0, 1.0)], "connected": 0.1}
    return Outcome(session, words, **{**told, "sent": 500, "lost": 5, **more})


def row(*outcomes: Outcome, round_: int = 1, weather: Weather | None = None, cost: Cost = QUIET) -> Row:
    return row_of(round_, weather or Weather(), outcomes, [PLAN], cost)


def test_a_row_counts_words_delays_and_lost_audio() -> None:
    found = row(outcome(0, PLAN.text), outcome(1, "one two four"), outcome(2, "", error="idle", shown=[], final=[]))
    assert found.words == [4, 4, 4] and found.word_errors == [0, 1, 4] and found.wer == 5 / 12
    assert (found.before, found.after, found.caption_p50, found.final_p50) == (200.0, 300.0, 300.0, 1000.0)
    assert found.errors == {"idle": 1} and (found.sent, found.lost) == (1500, 15)
    assert found.lost_audio == 1.0  # 0.3 s were missing and 15 packets of 20 ms lost
    assert found.valid and not row(outcome(0, "", lag=0.2)).valid
    assert not row(outcome(0, ""), cost=dataclasses.replace(QUIET, client_cpu=0.95)).valid


def test_rows_are_compared_session_by_session() -> None:
    clean = [row(outcome(0, PLAN.text), outcome(1, "one two three"), round_=n) for n in (1, 2)]
    poor = [row(outcome(0, "one two"), outcome(1, "one two"), round_=n, weather=Weather(0.05)) for n in (1, 2)]
    cells = report.line(poor, clean).split(" | ")
    assert cells[1] == "5 % lost" and cells[4] == "50.0%"
    assert cells[5].startswith("+37.5% (+25.0% to +50.0%)")
    assert report.line(clean, clean).split(" | ")[5] == "-"


def test_what_a_line_does_is_said() -> None:
    assert report.described(Weather()) == "all come"
    assert report.described(Weather(loss=0.05, burst=4.0)) == "5 % lost in bursts of 4"
    assert report.described(Weather(reorder=0.03, late=0.05)) == "3 % late by 50 ms"

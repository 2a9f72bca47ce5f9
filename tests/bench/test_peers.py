"""The comparison with others: what it computes, our side of it, and what it says when something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.peers import report
from bench.peers.contender import CONTENDERS, NEMO, OURS, SHERPA, SHERPA_FP32
from bench.peers.sides import ALIGN_SAMPLES, Talk, Task
from bench.peers.sides.ours import Ours
from bench.peers.words import error_rate
from nemostream.models.bundle import Bundle
from tests.speech import utterance

ROOT = Path(__file__).resolve().parents[2]


def rounds(*streams: float) -> dict[str, object]:
    return {"rounds": [{"streams": s} for s in streams]}


def test_error_rate_counts_words_over_all_texts() -> None:
    assert error_rate(["one two three", "four"], ["One, two three!", "four"]) == 0
    assert error_rate(["one two three", "four"], ["one three", "five"]) == 0.5
    assert error_rate(["", "four"], ["one", "four"]) == 1
    assert error_rate([""], [""]) == 0


def test_ratios_are_taken_round_by_round() -> None:
    found = {contender.name: rounds(1, 1, 1) for contender in CONTENDERS}
    found[OURS.name] = rounds(10, 30, 12)
    found[SHERPA.name] = rounds(5, 10, 3)
    found[SHERPA_FP32.name] = rounds(4, 15, 2)
    found[NEMO.name] = rounds(2, 2, 2)
    held = report.ratios({"160": found})
    assert held["ratios"] == {"160": 3.0}
    assert held["ratios_spread"]["160"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert held["ratios_to_best_of_sherpa_onnx"]["160"] == {"median": 2.0, "min": 2.0, "max": 4.0}
    assert held["ratios_to_nemo"]["160"]["max"] == 15.0


def test_streams_hear_the_talk_over_and_over_from_different_places() -> None:
    samples = np.arange(200_000, dtype=np.float32)
    talk = Talk(samples, 2)
    first = np.concatenate([talk.next(0, 12_800) for _ in range(20)])
    second = np.concatenate([talk.next(1, 12_800) for _ in range(20)])
    assert np.array_equal(first, np.resize(samples, len(first)))
    shift = int(second[0])
    assert shift > 0
    assert np.array_equal(second, np.resize(np.roll(samples, -shift), len(second)))


def test_our_side_writes_what_was_said(toy_bundle: Bundle) -> None:
    spoken = [utterance(seed) for seed in (1, 2, 3)]
    talk = np.concatenate([samples for _, samples in spoken])
    side = Ours(Task("ours", "fp32", str(toy_bundle.path), 160, "", "", 0), talk)
    tail = np.zeros(16_000, np.float32)
    clips = [np.concatenate([np.zeros(ALIGN_SAMPLES, np.float32), samples, tail]) for _, samples in spoken]
    assert error_rate([" ".join(words) for words, _ in spoken], side.transcribe(clips)) <= 0.1
    side.open(3)
    for _ in range(3):
        took = side.step()
        assert took.step > 0 and took.features > 0 and took.passed > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rounds", "0"], "--rounds must be 1 or more"),
        (["--cpu", "100000"], "there is no core 100000"),
        ([], "has no NeMo; run make proof once"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.peers", "--json", str(tmp_path / "peers.json"), *arguments],
        cwd=ROOT,
        env={**os.environ, "NEMO_PYTHON": str(tmp_path / "python")},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "peers.json").exists()

"""The gate: what goes on, what is kept back, what is gone; without a model and without a detector."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nemostream.gate import PREROLL, SETTLE_MS, Gate, passes_for
from nemostream.inbox import Request
from nemostream.protocol import Endpointing, Samples
from nemostream.vad import WINDOW

PASSES = 3 * WINDOW
talk = st.lists(st.tuples(st.sampled_from("s..r"), st.integers(1, 20)), max_size=8).map(
    lambda runs: [what for what, length in runs for _ in range(length)]
)
"""Windows of speech, of silence, or something else that goes on in its order, a few of each."""


@dataclass
class Line:
    """Windows into a gate, each of as many equal samples as its number; what comes out, with the clock it makes."""

    gate: Gate = field(default_factory=lambda: Gate(PASSES))
    came: int = 0
    gone: int = 0
    clock: int = 0
    passed: list[int] = field(default_factory=list)

    def take(self, what: str) -> list[Samples | Request]:
        if what == "r":
            out = self.gate.release()
        else:
            out = self.gate.hear(np.full(WINDOW, self.came, np.float32), what == "s")
            self.gone += self.gate.drop()
            self.came += 1
        for item in out:
            if isinstance(item, Request):
                self.clock += item.gap
                continue
            assert (item == self.clock // WINDOW).all(), "a window goes on at its own time"
            self.passed.append(self.clock // WINDOW)
            self.clock += len(item)
        return out


@given(talk)
def test_nothing_is_lost_or_moved(pattern: list[str]) -> None:
    """What went on, what the clock jumped over and what is kept back are what came; little is kept back."""
    line = Line()
    for what in pattern:
        line.take(what)
        assert line.clock + line.gate.dropped + line.gate.held == line.came * WINDOW
        assert line.gate.held <= PREROLL * WINDOW
    assert len(line.passed) * WINDOW + line.gone + line.gate.held == line.came * WINDOW


@given(talk)
def test_speech_and_what_is_around_it_goes_on(pattern: list[str]) -> None:
    line = Line()
    for what in pattern:
        line.take(what)
    windows = [what for what in pattern if what != "r"]
    for i, what in enumerate(windows):
        if what == "s":
            around = range(max(0, i - PREROLL), min(len(windows), i + 1 + PASSES // WINDOW))
            assert set(around) <= set(line.passed)


@given(talk, st.data())
def test_a_saved_gate_goes_on_where_it_was(pattern: list[str], data: st.DataObject) -> None:
    line = Line()
    at = data.draw(st.integers(0, len(pattern)))
    for what in pattern[:at]:
        line.take(what)
    other = copy.copy(line)
    other.passed = list(line.passed)
    other.gate = Gate.load(line.gate.export())
    for what in pattern[at:]:
        line.take(what)
        other.take(what)
    assert (line.passed, line.clock, line.gone) == (other.passed, other.clock, other.gone)


def test_pending_text_is_asked_for_where_the_gate_closes() -> None:
    line = Line()
    out = [item for what in "s......" for item in line.take(what)]
    assert [isinstance(item, Request) for item in out] == [False] * 4 + [True]
    assert out[-1] == Request("gap", silent=True)


def test_silence_passes_for_longer_than_endpointing_waits() -> None:
    for endpointing in (Endpointing(), Endpointing(blank_ms=1500), Endpointing(None, 2000), Endpointing(None)):
        longest = max(endpointing.blank_ms or 0, endpointing.vad_ms or 0)
        assert passes_for(endpointing) >= (longest + SETTLE_MS) * 16
    assert passes_for(Endpointing()) == 16_000

"""Two speakers whose sound cards are too fast and too slow, for as long as a meeting, on a clock that the test moves.

A stream's time is the number of its samples, so an hour at 300 ppm is a second longer, or shorter, than an hour. All
that happens has to follow: words lie where they were spoken, finals come in time, and nothing heaps up. A word's time
of day is taken as the adapter takes it, by counting back from the newest audio.

`make test` runs six minutes at 3000 ppm, which comes to as much; with PROOF_FACTOR set, the hour at 300. To be quick,
chunks have 1120 ms, frames 320 ms, and the model is int8.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import psutil
import pytest

from nemostream.model import Model
from nemostream.protocol import Endpointing, Final
from tests.engine.driver import Driver
from tests.examples import FACTOR
from tests.speech import WORDS, synth

SECONDS, DRIFT, WINDOW = (3600.0, 300e-6, 300.0) if FACTOR > 1 else (360.0, 3000e-6, 120.0)
CHUNK_MS, ENDPOINT_MS, P_MS, SLACK_MS = 1120, 400, 320, 300
FINAL_WITHIN = (CHUNK_MS + ENDPOINT_MS + P_MS + SLACK_MS) / 1000
FRAME = 5120
PERIOD = 8 * 16_000
"""One word in as many samples."""


@dataclass(slots=True)
class Speaker:
    """Says a word every PERIOD of its own samples, of which it makes `rate` in a true second.

    Attributes:
        stream: its number.
        pushed: samples so far.
        open: words without a final: text, first sample, last sample.
        onsets: by when it was spoken, how far from there the word was placed; both in true seconds.
    """

    stream: int
    rate: float
    pushed: int = 0
    open: deque[tuple[str, int, int]] = field(default_factory=deque)
    onsets: list[tuple[float, float]] = field(default_factory=list)
    latest_final: float = 0.0

    @property
    def next_at(self) -> float:
        """When the next frame is complete."""
        return (self.pushed + FRAME) / self.rate

    def frame(self) -> np.ndarray:
        start = self.pushed % PERIOD
        number = self.pushed // PERIOD
        text = WORDS[(number * 7 + self.stream) % len(WORDS)]
        samples, first, last = SAID[text]
        if start == 0:
            self.open.append((text, self.pushed + first, self.pushed + last))
        self.pushed += FRAME
        return samples[start : start + FRAME]

    def take(self, final: Final, now: float) -> None:
        for word in final.words:
            text, first, last = self.open.popleft()
            assert word.text == text
            placed = now - (self.pushed - word.start_sample) / 16_000
            self.onsets.append((first / self.rate, placed - first / self.rate))
            self.latest_final = max(self.latest_final, now - last / self.rate)

    def error(self, begin: float, end: float) -> float:
        return float(np.median([error for at, error in self.onsets if begin <= at < end]))


def said(word: str) -> tuple[np.ndarray, int, int]:
    """PERIOD samples with `word` in it, and where it begins and ends."""
    samples = synth([word], np.random.RandomState(1), lead=0.5, tail=0.0, noise=0.0)
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    whole = np.zeros(PERIOD, np.float32)
    whole[: len(samples)] = samples
    whole += np.float32(0.003) * np.random.RandomState(2).randn(PERIOD).astype(np.float32)
    return whole, int(loud[0]), int(loud[-1])


SAID = {word: said(word) for word in WORDS}


def test_drift_moves_no_word_delays_no_final_and_heaps_nothing_up(toy_int8: Model) -> None:
    driver = Driver(toy_int8, chunk_ms=CHUNK_MS, endpointing=Endpointing(blank_ms=ENDPOINT_MS))
    speakers = [Speaker(1, 16_000 * (1 + DRIFT)), Speaker(2, 16_000 * (1 - DRIFT))]
    for speaker in speakers:
        driver.open(speaker.stream)
    process, early = psutil.Process(), 0
    while driver.now < SECONDS:
        speaker = min(speakers, key=lambda s: s.next_at)
        driver.wait(speaker.next_at - driver.now)
        driver.push(speaker.stream, speaker.frame())
        for each in speakers:
            for final in driver.finals(each.stream):
                each.take(final, driver.now)
            driver.events[each.stream].clear()
            driver.tokens[each.stream].clear()
        if not early and driver.now > SECONDS / 2:
            early = process.memory_info().rss
    grown = process.memory_info().rss - early
    for speaker in speakers:
        print(
            f"{speaker.error(0, WINDOW):.3f} {speaker.error(SECONDS - WINDOW, SECONDS):.3f} {speaker.latest_final:.2f}"
        )
        assert len(speaker.open) <= 1 and len(speaker.onsets) >= int(SECONDS * 16_000 / PERIOD) - 1, (
            "nothing is pending"
        )
        assert speaker.error(SECONDS - WINDOW, SECONDS) == pytest.approx(speaker.error(0, WINDOW), abs=0.1)
        assert speaker.latest_final <= FINAL_WITHIN
    assert grown < 8 << 20, "memory is flat"

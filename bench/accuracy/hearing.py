"""Clips through the engine's core, many as rows of one batch, and when each text came.

heard = hear(model, clips, Way(chunk_ms=160, decoder="rnnt", lead=0.3))
heard[0].text, heard[0].shown

Time is audio: 20 ms are pushed for every stream, the core runs whatever is due, and events count as of that moment. So
times are what the model and its chunk make a user wait for; what a step takes comes on top (answer_to_flush).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from bench.accuracy.manifest import Clip
from bench.speech import NOISE
from nemostream import errors
from nemostream.core import Core
from nemostream.model import Model
from nemostream.protocol import (
    SAMPLE_RATE,
    Close,
    Endpointing,
    Event,
    Failed,
    Final,
    Flush,
    Interim,
    Open,
    Pushes,
    Refused,
    Samples,
    Word,
)

BLOCK = SAMPLE_RATE // 50
OWNER = "accuracy"
TAIL = 0.5
"""Seconds of silence behind a clip, beside two chunks and what endpointing waits for."""
PHASE = 0.24
"""Seconds up to which a clip begins later, so that speech begins anywhere in a chunk, or between two looks into one."""
FLUSHED = 12
"""Clips of which a flush is timed."""


@dataclass(frozen=True, slots=True)
class Way:
    """How clips are heard. `lead`: seconds of quiet noise before each; `rows`: streams at once, at most; `seed`: of the
    noise and of PHASE, which depend on nothing else but the clip's number."""

    chunk_ms: int
    decoder: str
    lead: float = 0.3
    rows: int = 32
    seed: int = 0

    def sound(self, clip: Clip, number: int) -> tuple[Samples, int]:
        """The clip between silences, in a quiet room; and at which sample it begins."""
        rng = np.random.default_rng([self.seed, number])
        before = round((self.lead + rng.uniform(0, PHASE)) * SAMPLE_RATE)
        tail = TAIL + (2 * self.chunk_ms + (Endpointing().blank_ms or 0)) / 1000
        padded = np.pad(clip.samples, (before, round(tail * SAMPLE_RATE)))
        sound: Samples = padded + rng.standard_normal(len(padded), np.float32) * np.float32(NOISE)
        return sound, before


@dataclass(slots=True)
class Heard:
    """What came of one clip. Samples count from its first one, what lies before it is negative.

    Attributes:
        before: samples of silence before the clip.
        words: of all Finals.
        shown: when there was a text to show, interim or final.
        final: when the last Final with text came.
    """

    before: int
    words: list[Word] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    final: int | None = None

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    def take(self, event: Event, at: int) -> None:
        """An event that came when so many samples were pushed."""
        if isinstance(event, Failed | Refused):
            raise getattr(errors, event.code, errors.NemostreamError)(event.message)
        if isinstance(event, Interim | Final) and event.text:
            self.shown.append(at - self.before)
        if isinstance(event, Final) and event.text:
            self.words += [_moved(word, -self.before) for word in event.words]
            self.final = at - self.before


def hear(model: Model, clips: Sequence[Clip], way: Way) -> list[Heard]:
    """Every clip through a live stream of its own, endpointing as the model has it.

    Raises:
        NemostreamError: a stream was refused or failed.
    """
    sounds = [way.sound(clip, number) for number, clip in enumerate(clips)]
    heard = [Heard(before) for _, before in sounds]
    order = sorted(range(len(clips)), key=lambda i: len(sounds[i][0]))  # so that the rows of a batch end together
    for start in range(0, len(order), way.rows):
        part = order[start : start + way.rows]
        _together(model, [sounds[i][0] for i in part], way, [heard[i] for i in part])
    return heard


def _together(model: Model, sounds: Sequence[Samples], way: Way, heard: Sequence[Heard]) -> None:
    now = 0.0
    core = Core(max_streams=len(sounds), clock=lambda: now)
    core.add_model(None, model)
    for i in range(len(sounds)):
        core.handle(OWNER, _open(i, way))
    for at in range(0, max(map(len, sounds)), BLOCK):
        streams = [i for i, sound in enumerate(sounds) if at < len(sound)]
        parts = [sounds[i][at : at + BLOCK] for i in streams]
        pushes = Pushes(streams, [at] * len(streams), list(map(len, parts)), np.concatenate(parts))
        core.hear(OWNER, pushes)
        now += BLOCK / SAMPLE_RATE
        for event in _run(core):
            heard[event.stream].take(event, at + BLOCK)
        ended = [i for i in streams if at + BLOCK >= len(sounds[i])]
        for i in ended:
            core.handle(OWNER, Close(i))
        for event in _run(core) if ended else ():
            heard[event.stream].take(event, at + BLOCK)


def answer_to_flush(model: Model, clips: Sequence[Clip], way: Way) -> tuple[float, float]:
    """Steps, and ms of wall time, from a flush at the end of a clip's speech to its Final: medians over FLUSHED clips,
    one stream alone.

    Raises:
        NemostreamError: a stream was refused or failed.
    """
    count = min(FLUSHED, len(clips))
    steps, seconds = [], []
    for number in (i * len(clips) // count for i in range(count)):
        sound, before = way.sound(clips[number], number)
        sound = sound[: before + clips[number].ends]
        core = Core(max_streams=1, peek=False, clock=lambda: 0.0)
        core.add_model(None, model)
        core.handle(OWNER, _open(0, way))
        core.hear(OWNER, Pushes([0], [0], [len(sound)], sound))
        _run(core)
        calls, began = _calls(core), time.perf_counter()
        core.handle(OWNER, Flush(0, 1))
        events = _run(core)
        seconds.append(time.perf_counter() - began)
        steps.append(_calls(core) - calls)
        assert any(isinstance(event, Final) and event.flush_id == 1 for event in events)
    return statistics.median(steps), round(1000 * statistics.median(seconds), 2)


def _moved(word: Word, by: int) -> Word:
    return Word(word.text, word.start_sample + by, word.end_sample + by, word.confidence)


def _open(stream: int, way: Way) -> Open:
    return Open(stream, chunk_ms=way.chunk_ms, decoder=cast(Literal["rnnt", "ctc"], way.decoder))


def _run(core: Core) -> list[Event]:
    while core.step():
        pass
    return core.take_events().get(OWNER, [])


def _calls(core: Core) -> int:
    return sum(group.counters.steps for group in core.groups.values())

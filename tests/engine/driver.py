"""Drives a Core by hand: a clock that only the test moves, events kept by stream, every token seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemostream.core import Core
from nemostream.cost import Line
from nemostream.greedy import Token
from nemostream.model import Model
from nemostream.packing import is_mono
from nemostream.protocol import (
    NO_ENDPOINT,
    Close,
    Endpointing,
    Event,
    Final,
    Flush,
    Gap,
    Interim,
    Message,
    Mute,
    Open,
    Push,
    Pushes,
    Refused,
    Samples,
    Unmute,
    Update,
)
from nemostream.stream import Stream
from nemostream.work import Work


class Driver:
    """One owner's view of a Core.

    d = Driver(model, chunk_ms=160)
    d.open(1); d.push(1, samples); d.flush(1, 7)
    d.text(1)
    """

    def __init__(
        self,
        model: Model,
        *,
        max_streams: int = 8,
        peek: bool = False,
        costs: Mapping[int, Line] | None = None,
        max_batch: int | None = None,
        **opened: Any,
    ) -> None:
        self.now = 0.0
        self.core = Core(max_streams=max_streams, peek=peek, max_batch=max_batch, clock=lambda: self.now)
        self.core.add_model(None, model, costs=costs)
        self.model = model
        self.events: dict[int, list[Event]] = defaultdict(list)
        self.tokens: dict[int, list[Token]] = defaultdict(list)
        self._opened: dict[str, Any] = {"endpointing": NO_ENDPOINT, **opened}
        self._pushed: dict[int, int] = defaultdict(int)
        self.chunks: dict[int, int] = defaultdict(int)

    def open(self, stream: int, run: bool = True, **opened: Any) -> None:
        self._pushed[stream] = self.chunks[stream] = 0
        self.send(Open(stream, **{**self._opened, **opened}), run=run)

    def push(self, stream: int, samples: Samples, run: bool = True) -> None:
        self.send(Push(stream, samples, self._pushed[stream]), run=run)
        self._pushed[stream] += len(samples)

    def gap(self, stream: int, samples: int) -> None:
        self.send(Gap(stream, samples))
        self._pushed[stream] += samples

    def flush(self, stream: int, flush_id: int, run: bool = True) -> None:
        self.send(Flush(stream, flush_id), run=run)

    def mute(self, stream: int) -> None:
        self.send(Mute(stream))

    def unmute(self, stream: int) -> None:
        self.send(Unmute(stream))

    def update(self, stream: int, endpointing: Endpointing) -> None:
        self.send(Update(stream, endpointing))

    def close(self, stream: int, drain: bool = True, run: bool = True, keep: bool = False) -> None:
        self.send(Close(stream, drain, keep), run=run)

    def send(self, message: Message, run: bool = True) -> None:
        if isinstance(message, Push) and is_mono(message.samples):
            self.core.hear("driver", Pushes.of([message]))
        else:
            self.core.handle("driver", message)
        self._collect()
        if run:
            self.run()

    def run(self, most: int | None = None) -> int:
        """Step until nothing is due at this moment, `most` times at most; returns the steps taken."""
        steps = 0
        with _Tap(self):
            while steps != most and self.core.step():
                steps += 1
                self._collect()
        self._collect()
        return steps

    def wait(self, seconds: float) -> int:
        """Let time pass, running whatever becomes due on the way."""
        end, steps = self.now + seconds, self.run()
        while (due := self.core.wake_at()) is not None and due <= end:
            self.now = max(self.now, due)
            steps += self.run()
        self.now = end
        return steps + self.run()

    @property
    def calls(self) -> int:
        """Encoder calls so far."""
        return sum(g.counters.steps for g in self.core.groups.values())

    def of(self, stream: int, kind: type[Event]) -> list[Any]:
        return [e for e in self.events[stream] if isinstance(e, kind)]

    def finals(self, stream: int) -> list[Final]:
        return self.of(stream, Final)

    def text(self, stream: int) -> str:
        """The joined Finals."""
        return " ".join(f.text for f in self.finals(stream) if f.text)

    def shown(self, stream: int) -> str:
        """The newest interim text."""
        interims = self.of(stream, Interim)
        return interims[-1].text if interims else ""

    def refused(self, stream: int) -> Refused:
        (refused,) = self.of(stream, Refused)
        return refused  # type: ignore[no-any-return]

    def _collect(self) -> None:
        for event in self.core.take_events().get("driver", []):
            self.events[event.stream].append(event)
        for seat in self.core._seats:
            self.chunks[seat.key[1]] = seat.stream.feed.lane.chunks

    def keep(self, stream: Stream, tokens: Sequence[Token]) -> None:
        """Note the tokens of a committed step, with the frames of the stream."""
        first = stream.feed.lane.chunks * stream.chunk_frames
        self.tokens[stream.opened.stream] += [t._replace(frame=first + t.frame) for t in tokens]


class _Tap:
    """Listens to what steps give streams, so that a test sees the committed tokens themselves."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __enter__(self) -> None:
        self._done = Stream.done
        driver, done = self._driver, Stream.done

        def tapped(stream: Stream, tokens: Sequence[Token], work: Work | None = None) -> list[Event]:
            if work is None:
                driver.keep(stream, tokens)
            return done(stream, tokens, work)

        Stream.done = tapped  # type: ignore[method-assign]

    def __exit__(self, *error: object) -> None:
        Stream.done = self._done  # type: ignore[method-assign]


def load(path: Path, precision: str = "fp32") -> Model:
    return Model.load(path, precision, 1)


def noise(rng: np.random.Generator, samples: int, level: float = 0.1) -> Samples:
    return (level * rng.standard_normal(samples)).astype(np.float32)

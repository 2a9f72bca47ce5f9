"""One live stream of a client, whatever protocol it speaks: push, flush, close; events come out.

async with service.open(options, who, "ws") as session:
    await session.push(data)         # waits while the engine is behind, so that the client does too
    session.flush(); await session.finish()
    async for event in session: ...  # Interim, Preflight, Final, until all is said
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nemostream.client import ClientStream
from nemostream.errors import NemostreamError, StreamClosed
from nemostream.protocol import (
    SAMPLE_RATE,
    Ended,
    Event,
    Failed,
    Final,
    Interim,
    Pcm,
    Preflight,
    Samples,
    Started,
    Usage,
)

from .errors import failure, refusal
from .pace import Pace

if TYPE_CHECKING:
    from .metrics import Metrics

MARKS = 4096
"""Pushes whose time of arrival is known."""


class Decoder(Protocol):
    """Bytes to samples, at once (pcm.PcmDecoder) or bit by bit, as they can be taken (container.ContainerDecoder)."""

    def push(self, data: bytes) -> Samples | Pcm | AsyncIterator[Samples]: ...

    def finish(self) -> Samples | AsyncIterator[Samples]: ...

    def close(self) -> None:
        """In any case, at the end."""
        ...


class Arrivals:
    """When which sample came in."""

    def __init__(self) -> None:
        self._ends: list[int] = []
        self._times: list[float] = []

    def note(self, end: int, at: float) -> None:
        """All samples before `end` are here."""
        self._ends.append(end)
        self._times.append(at)
        if len(self._ends) > 2 * MARKS:
            del self._ends[:MARKS], self._times[:MARKS]

    def of(self, sample: int) -> float | None:
        """When `sample` was here; None: it is not yet, or nobody knows any more."""
        i = bisect_left(self._ends, sample)
        return self._times[i] if i < len(self._times) and (i or sample >= 0) else None


class Session:
    """Made by `Service.open`.

    Attributes:
        started: what the engine has opened.
        wall_time: when, in seconds since the epoch.
        seconds: of audio that came, on the engine's clock.
        finals: with text, so far.
        facts: for the log, beside those.
    """

    def __init__(
        self, stream: ClientStream, decoder: Decoder, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        assert stream.started is not None
        self.started: Started = stream.started
        self.wall_time = stream.started.wall_time
        self.finals = 0
        self.facts: dict[str, object] = {}
        self._stream, self._decoder, self._metrics, self._clock = stream, decoder, metrics, clock
        self._arrivals = Arrivals()
        self._flushed: dict[int, float] = {}
        self._pace = Pace(stream)
        self._shown = False
        self._closed_at: float | None = None

    @property
    def at_sample(self) -> int:
        """Where the next audio begins."""
        return self._stream.at_sample

    @property
    def seconds(self) -> float:
        return self.at_sample / SAMPLE_RATE

    async def push(self, data: bytes) -> None:
        """Audio in the stream's encoding, any number of bytes.

        Raises:
            Refusal: the audio cannot be decoded, or the stream is over.
        """
        await self._take(lambda: self._decoder.push(data))

    def hear(self, samples: Samples | Pcm) -> None:
        """Samples (N,) at 16 kHz of a source that speaks by the clock: nobody waits, and the engine ends the stream
        of one that comes to be 30 s ahead.

        Raises:
            Refusal: the stream is over.
        """
        self._send(lambda: self._stream.push(samples))

    def gap(self, samples: int) -> None:
        """So much time passes without audio. Raises Refusal: the stream is over."""
        self._send(lambda: self._stream.gap(samples))

    def mute(self) -> None:
        """No audio comes for a while: what is pending becomes final. Raises Refusal: the stream is over."""
        self._send(self._stream.mute)

    def since(self, sample: int) -> float | None:
        """Seconds since `sample` came; None: it has not, or nobody knows any more."""
        at = self._arrivals.of(sample)
        return None if at is None else self._clock() - at

    async def finish(self) -> None:
        """No more audio: what the decoder holds back counts too, then `close`.

        Raises:
            Refusal: there was no audio in what came, or the stream is over.
        """
        await self._take(self._decoder.finish)
        self.close()

    def flush(self) -> int:
        """Ask for a Final now; exactly one carries the returned id."""
        try:
            flush_id = self._stream.flush()
        except StreamClosed as error:
            raise refusal(error) from error
        self._flushed[flush_id] = self._clock()
        return flush_id

    def close(self) -> None:
        """No more audio: what is pending becomes final, then the events end."""
        if self._closed_at is not None or self._stream.over:
            return
        self._closed_at = self._clock()
        self._stream.close(drain=True)

    def drop(self) -> None:
        """Nobody listens any more."""
        self._decoder.close()
        self._stream.close(drain=False)
        self._pace.over()

    async def __aiter__(self) -> AsyncIterator[Interim | Preflight | Final]:
        """
        Raises:
            Refusal: the engine has ended the stream.
        """
        async for event in self._stream:
            if isinstance(event, Usage):
                self._pace.heard(event.total)
                self._metrics.audio_seconds.inc(event.samples / SAMPLE_RATE)
            elif isinstance(event, (Interim, Preflight, Final)):
                self._measure(event)
                yield event
            elif isinstance(event, (Failed, Ended)):
                self._pace.over()
                if isinstance(event, Failed):
                    raise failure(event)
                return

    async def _take(self, decode: Callable[[], Samples | Pcm | AsyncIterator[Samples]]) -> None:
        try:
            found = decode()
            if isinstance(found, np.ndarray):
                await self._push(found)
            else:
                async for samples in found:
                    await self._push(samples)
        except NemostreamError as error:
            raise refusal(error) from error

    def _send(self, message: Callable[[], None]) -> None:
        before = self._stream.at_sample
        try:
            message()
        except StreamClosed as error:
            raise refusal(error) from error
        if self._stream.at_sample != before:
            self._arrivals.note(self._stream.at_sample, self._clock())

    async def _push(self, samples: Samples | Pcm) -> None:
        if len(samples):
            self._stream.push(samples)
            self._arrivals.note(self._stream.at_sample, self._clock())
        await self._pace.wait()

    def _measure(self, event: Event) -> None:
        now = self._clock()
        if isinstance(event, (Interim, Final)) and event.words and not self._shown:
            self._shown = True
            if (at := self._arrivals.of(event.words[0].start_sample)) is not None:
                self._metrics.time_to_first_text.observe(now - at)
        if isinstance(event, Final):
            self._shown = False
            asked = self._flushed.pop(event.flush_id, None) if event.flush_id is not None else None
            if event.reason == "end":
                asked = self._closed_at
            at = asked if asked is not None else self._arrivals.of(event.end_sample)
            if event.words:
                self.finals += 1
                if at is not None:
                    self._metrics.time_to_final.observe(now - at)

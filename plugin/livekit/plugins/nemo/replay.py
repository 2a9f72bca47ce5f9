"""What must be heard again when a stream is reopened: the audio since the last Final, and flushes without an answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from nemostream.protocol import SAMPLE_RATE, Final, Samples

LIMIT = 20 * SAMPLE_RATE
"""Samples that are kept at most. A segment is closed after 15 s, so a whole one always fits."""

MARGIN = SAMPLE_RATE * 160 // 1000
"""Behind the last word of a segment that ended in silence: its end is known to about a frame, and must not be heard
twice."""


@dataclass(slots=True)
class Ask:
    """A flush at sample `at` that has no answer yet; `flush_id` on the engine stream that is open now."""

    at: int
    flush_id: int | None


class Replay:
    """A ring of samples on the clock of the whole stream (which retries do not restart)."""

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self._chunks: deque[Samples] = deque()
        self._asks: list[Ask] = []

    @property
    def empty(self) -> bool:
        """There is no audio that no Final covers."""
        return self.start == self.end

    def append(self, samples: Samples) -> None:
        self._chunks.append(samples)
        self.end += len(samples)
        self._trim(self.end - LIMIT)

    def skip(self, samples: int) -> None:
        """Time passed without audio: what came before it has been finalised."""
        self.end += samples
        self._chunks.clear()
        self.start = self.end

    def asked(self, flush_id: int) -> None:
        """A flush was asked for at the present end."""
        self._asks.append(Ask(self.end, flush_id))

    def settle(self, final: Final, origin: int) -> None:
        """A Final came from an engine stream whose sample 0 is `origin`: what it covers is not needed again."""
        if final.flush_id is not None:
            for ask in [ask for ask in self._asks if ask.flush_id == final.flush_id]:
                self._asks.remove(ask)
                self._trim(ask.at)
        elif final.reason == "limit":
            self._trim(origin + final.end_sample)
        elif final.text:
            self._trim(origin + final.end_sample + MARGIN)

    def again(self) -> Iterator[Samples | Ask]:
        """What to send to a new stream, in order: audio, and each Ask, whose `flush_id` the caller renews."""
        for ask in self._asks:
            ask.flush_id = None
        asks = deque(self._asks)
        at = self.start
        for chunk in tuple(self._chunks):
            while asks and asks[0].at < at + len(chunk):
                cut = max(asks[0].at - at, 0)
                if cut:
                    yield chunk[:cut]
                yield asks.popleft()
                chunk, at = chunk[cut:], at + cut
            yield chunk
            at += len(chunk)
        yield from asks

    def _trim(self, to: int) -> None:
        to = min(to, self.end)
        while self._chunks and self.start < to:
            chunk = self._chunks.popleft()
            if self.start + len(chunk) > to:
                self._chunks.appendleft(chunk[to - self.start :])
                self.start = to
            else:
                self.start += len(chunk)

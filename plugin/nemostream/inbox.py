"""What waits on a stream's way in, in the order it came: samples, requests, changes of its options.

items: deque[Item] = deque()
put(items, samples); items.append(Request("flush", 7)); put(items, more)
[to_part(item) for item in items]   # as plain data
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import cast

import numpy as np

from nemostream.protocol import FULL_SCALE, INT16, Endpointing, FinalReason, Pcm, Samples


@dataclass(slots=True)
class Request:
    """Something that ends the segment: a flush with an id, or a reason of the engine's own."""

    reason: FinalReason
    flush_id: int | None = None
    gap: int = 0
    """Samples by which the clock jumps once the request is answered."""
    silent: bool = False
    """Of the gate: speech ended long before it, so nothing may be pending that needs a step."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a stream is heard.

    Attributes:
        prompt: place of its language in the encoder's prompt; 0 where the model takes none.
        skip_silence: it has a gate.
    """

    endpointing: Endpointing
    prompt: int = 0
    keyterms: tuple[str, ...] = ()
    skip_silence: bool = False


@dataclass(slots=True)
class Part:
    """A part of a queue as plain data: one of these."""

    samples: Samples | None = None
    request: Request | None = None
    change: Options | None = None


class SampleQueue:
    """Samples in the order they came, taken in pieces of any size without copying what stays."""

    def __init__(self) -> None:
        self._parts: deque[Samples] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, samples: Samples) -> None:
        if len(samples):
            self._parts.append(samples)
            self._length += len(samples)

    def peek(self) -> Samples:
        """All of them; they stay."""
        return np.concatenate([np.zeros(0, np.float32), *self._parts])

    def take(self, count: int) -> Samples:
        """The first `count` samples, or all there are."""
        taken: list[Samples] = []
        missing = min(count, self._length)
        self._length -= missing
        while missing:
            part = self._parts.popleft()
            if len(part) > missing:
                self._parts.appendleft(part[missing:])
                part = part[:missing]
            taken.append(part)
            missing -= len(part)
        if len(taken) == 1:
            return taken[0]
        return np.concatenate(taken) if taken else np.zeros(0, np.float32)


Item = SampleQueue | Request | Options


def put(items: deque[Item], samples: Samples) -> None:
    """Put audio behind all of `items`."""
    if not len(samples):
        return
    if not items or not isinstance(items[-1], SampleQueue):
        items.append(SampleQueue())
    last = items[-1]
    assert isinstance(last, SampleQueue)
    last.put(samples)


def as_float(samples: Samples | Pcm) -> Samples:
    """In -1..1."""
    return cast(Samples, samples / FULL_SCALE if samples.dtype == INT16 else samples)


def length(item: Item) -> int:
    """Samples of audio in it."""
    return len(item) if isinstance(item, SampleQueue) else 0


def to_part(item: Item) -> Part:
    """As plain data."""
    if isinstance(item, SampleQueue):
        return Part(samples=item.peek())
    return Part(request=item) if isinstance(item, Request) else Part(change=item)


def shorten(parts: list[Part], count: int) -> None:
    """Take the last `count` samples away from the last of `parts`, which holds as many."""
    last = parts.pop().samples
    assert last is not None
    if len(last) > count:
        parts.append(Part(samples=last[:-count]))


def from_part(part: Part) -> Item:
    """What `to_part` was given."""
    if part.samples is not None:
        queue = SampleQueue()
        queue.put(part.samples)
        return queue
    found = part.request or part.change
    assert found is not None
    return found

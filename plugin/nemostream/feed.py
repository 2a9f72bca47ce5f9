"""The way in of a stream: samples to chunks of mel frames, with requests in their place between them.

feed.push(samples); feed.request(Request("flush", 7)); feed.push(more)
feed.chunk()      # the chunks before the request, one by one (`take_chunk`), then None
feed.open_request # now the request; `more` waits until `answered`
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from nemostream.encoders import Floats
from nemostream.mel import MelFilters, MelStream
from nemostream.protocol import SAMPLE_RATE, FinalReason, Samples
from nemostream.vad import WINDOW, Ear, EarState

FRONT_FRAMES = 7
"""Mel frames before the stream in its first chunk: chunk k takes frames [8Tk - 7, 8Tk + 8T - 8]."""
GAP_FINALISES = SAMPLE_RATE * 400 // 1000
"""A gap this long (400 ms) finalises what is pending; a shorter one is filled with silence."""


@dataclass(slots=True)
class Request:
    """Something that ends the segment: a flush with an id, or a reason of the engine's own."""

    reason: FinalReason
    flush_id: int | None = None
    gap: int = 0
    """Samples by which the clock jumps once the request is answered."""


@dataclass(slots=True)
class FeedState:
    """A Feed as plain data.

    Attributes:
        frames: (n, n_mels) mel frames that wait for the rest of their chunk.
        mel_tail: MelStream.tail.
        unjudged: samples that the detector has not heard.
        inbox: what waits behind, each part samples or a request.
    """

    frames: Floats
    mel_tail: tuple[Floats, float]
    heard: int
    unjudged: Samples
    inbox: list[tuple[Samples | None, Request | None]]
    open_request: Request | None
    ear: EarState | None


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


class Feed:
    """Everything of a stream before the encoder.

    Attributes:
        ear: voice activity of this stream; None while it is off.
        heard: samples that have become mel frames, or wait for the rest of one.
        open_request: the request that all chunks before it have reached; audio behind it waits.
    """

    def __init__(self, filters: MelFilters, chunk_frames: int) -> None:
        self.ear: Ear | None = None
        self.heard = 0
        self.open_request: Request | None = None
        self._width = 8 * chunk_frames
        self._filters = filters
        self._mel = MelStream(filters)
        self._frames: Floats = np.zeros((FRONT_FRAMES, filters.n_mels), np.float32)
        self._unjudged = SampleQueue()
        self._inbox: deque[SampleQueue | Request] = deque()
        self._requests = 0

    def push(self, samples: Samples) -> None:
        """Take audio. With voice activity on, the detector goes first: so an endpoint falls on the same sample however
        the audio was cut."""
        if self.ear is not None:
            self._unjudged.put(samples)
        else:
            self._admit(samples)
            self._fill()

    def request(self, request: Request) -> None:
        """Put a request behind all audio so far."""
        self.release()
        self._ask(request)
        self._fill()

    def release(self) -> None:
        """Let the audio that waits for the detector pass unheard by it."""
        self._admit(self._unjudged.take(len(self._unjudged)))
        self._fill()

    @property
    def window_ready(self) -> bool:
        """The detector has something to hear."""
        return self.ear is not None and len(self._unjudged) >= WINDOW

    def take_window(self) -> Samples:
        """The next WINDOW samples for the detector; give them to `judged`."""
        return self._unjudged.take(WINDOW)

    def judged(self, window: Samples, endpoint: bool) -> None:
        """The detector has heard a window, and the end of speech in it or not."""
        self._admit(window)
        if endpoint:
            self._ask(Request("endpoint"))
        self._fill()

    @property
    def waiting(self) -> int:
        """Samples that no mel frame has been made of."""
        return len(self._unjudged) + sum(len(x) for x in self._inbox if isinstance(x, SampleQueue))

    @property
    def asked(self) -> bool:
        """A request has not been answered."""
        return self._requests > 0

    @property
    def busy(self) -> bool:
        """A request has not been answered, or audio waits behind a complete chunk."""
        return bool(self._inbox) or self.asked

    def chunk(self) -> Floats | None:
        """(8T, n_mels): the next chunk, if it is complete."""
        return self._frames[: self._width] if len(self._frames) >= self._width else None

    def take_chunk(self) -> None:
        """The chunk was used."""
        self._frames = self._frames[self._width :]
        self._fill()

    def padded(self, steps: int) -> Floats:
        """(8T * steps, n_mels): the frames that wait, and those that would come if only silence followed."""
        missing = steps * self._width - len(self._frames)
        silence = np.zeros(missing * self._filters.hop + len(self._filters.window), np.float32)
        return np.concatenate([self._frames, self._mel.fork().push(silence)[:missing]])

    def answered(self) -> None:
        """The open request was answered: the audio behind it may come."""
        self.open_request = None
        self._requests -= 1
        self._fill()

    def export(self) -> FeedState:
        """All of it, shared, not copied: nothing here is changed in place."""
        inbox: list[tuple[Samples | None, Request | None]] = []
        for part in self._inbox:
            inbox.append((None, part) if isinstance(part, Request) else (part.peek(), None))
        ear = None if self.ear is None else self.ear.export()
        return FeedState(self._frames, self._mel.tail, self.heard, self._unjudged.peek(), inbox, self.open_request, ear)

    def load(self, saved: FeedState) -> None:
        """Go on where `saved` was taken. The detector hears on only if it is on here too."""
        self.heard, self.open_request = saved.heard, saved.open_request
        self._frames = saved.frames
        self._mel.load(saved.mel_tail)
        self._requests = int(saved.open_request is not None)
        for samples, request in saved.inbox:
            if request is not None:
                self._ask(request)
            elif samples is not None:
                self._admit(samples)
        if self.ear is None:
            self._admit(saved.unjudged)
        else:
            self._unjudged.put(saved.unjudged)
            if saved.ear is not None:
                self.ear.load(saved.ear)
        self._fill()

    def _ask(self, request: Request) -> None:
        self._inbox.append(request)
        self._requests += 1

    def _admit(self, samples: Samples) -> None:
        if not len(samples):
            return
        if not self._inbox or isinstance(self._inbox[-1], Request):
            self._inbox.append(SampleQueue())
        last = self._inbox[-1]
        assert isinstance(last, SampleQueue)
        last.put(samples)

    def _fill(self) -> None:
        """Make mel frames, but never more than the next chunk needs: a big push costs its share at every step."""
        while self._inbox and self.open_request is None and len(self._frames) < self._width:
            first = self._inbox[0]
            if isinstance(first, Request):
                self.open_request = first
                self._inbox.popleft()
                return
            samples = first.take((self._width - len(self._frames)) * self._filters.hop)
            if not first:
                self._inbox.popleft()
            self.heard += len(samples)
            self._frames = np.concatenate([self._frames, self._mel.push(samples)])

"""The way in of a stream: samples to chunks of mel frames, with requests in their place between them.

feed.push(samples); feed.request(Request("flush", 7)); feed.push(more)
feed.chunk()      # the chunks before the request, one by one (`take_chunk`), then None
feed.open_request # now the request; `more` waits until `answered`
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nemostream.encoders import Floats
from nemostream.inbox import Item, Part, Request, SampleQueue, from_part, length, put, to_part
from nemostream.mel import MelFilters, MelStream
from nemostream.protocol import SAMPLE_RATE, Endpointing, Samples
from nemostream.vad import WINDOW, Ear, EarState

FRONT_FRAMES = 7
"""Mel frames before the stream in its first chunk: chunk k takes frames [8Tk - 7, 8Tk + 8T - 8]."""
GAP_FINALISES = SAMPLE_RATE * 400 // 1000
"""A gap this long (400 ms) finalises what is pending; a shorter one is filled with silence."""


@dataclass(slots=True)
class FeedState:
    """A Feed as plain data.

    Attributes:
        frames: (n, n_mels) mel frames that wait for the rest of their chunk.
        mel_tail: MelStream.tail.
        unjudged: what the detector has not reached.
        inbox: what no mel frame was made of.
    """

    frames: Floats
    mel_tail: tuple[Floats, float]
    heard: int
    finalised: int
    endpointing: Endpointing
    blank_ms: int | None
    unjudged: list[Part]
    inbox: list[Part]
    open_request: Request | None
    ear: EarState | None


class Feed:
    """Everything of a stream before the encoder. Whatever is sent stays in its order: what a stream hears, and when a
    change of endpointing begins, never depends on how far the steps have come.

    Attributes:
        ear: voice activity of this stream; None while it is off.
        endpointing: what was asked for last; it may not have been reached.
        blank_ms: run of blanks that ends a segment in the chunk that is next; None: none does.
        heard: samples that have become mel frames, or wait for the rest of one.
        finalised: what was `heard` when the last request was answered.
        open_request: the request that all chunks before it have reached; audio behind it waits.
    """

    def __init__(
        self, filters: MelFilters, chunk_frames: int, endpointing: Endpointing, jump: Callable[[int], None]
    ) -> None:
        """`jump(samples)` is told of a gap when all before it has been finalised."""
        self.ear: Ear | None = None
        self.endpointing = endpointing
        self.blank_ms = endpointing.blank_ms
        self.heard = 0
        self.finalised = 0
        self.open_request: Request | None = None
        self._jump = jump
        self._width = 8 * chunk_frames
        self._filters = filters
        self._mel = MelStream(filters)
        self._frames: Floats = np.zeros((FRONT_FRAMES, filters.n_mels), np.float32)
        self._unjudged: deque[Item] = deque()
        self._inbox: deque[Item] = deque()
        self._requests = 0
        self._waiting = 0
        self._listen_as(endpointing)

    def push(self, samples: Samples) -> None:
        """Take audio. With voice activity on, the detector goes first: so an endpoint falls on the same sample however
        the audio was cut."""
        self._waiting += len(samples)
        put(self._unjudged, samples)
        self._pass()

    def request(self, request: Request) -> None:
        """Put a request behind all audio so far."""
        self._requests += 1
        self._unjudged.append(request)
        self._pass()

    def change(self, endpointing: Endpointing) -> None:
        """Put another endpointing behind all audio so far."""
        self.endpointing = endpointing
        self._unjudged.append(endpointing)
        self._pass()

    @property
    def window_ready(self) -> bool:
        """The detector has something to hear."""
        return self.ear is not None and bool(self._unjudged) and length(self._unjudged[0]) >= WINDOW

    def take_window(self) -> Samples:
        """The next WINDOW samples for the detector; give them to `judged`."""
        first = self._unjudged[0]
        assert isinstance(first, SampleQueue)
        return first.take(WINDOW)

    def judged(self, window: Samples, endpoint: bool) -> None:
        """The detector has heard a window, and the end of speech in it or not."""
        put(self._inbox, window)
        if endpoint:
            self._requests += 1
            self._inbox.append(Request("endpoint"))
        self._pass()

    @property
    def waiting(self) -> int:
        """Samples that no mel frame has been made of."""
        return self._waiting

    @property
    def requests(self) -> int:
        """Requests that have not been answered."""
        return self._requests

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
        self.finalised = self.heard
        self._requests -= 1
        self._fill()

    def export(self) -> FeedState:
        """All of it, shared, not copied: nothing here is changed in place."""
        return FeedState(
            frames=self._frames,
            mel_tail=self._mel.tail,
            heard=self.heard,
            finalised=self.finalised,
            endpointing=self.endpointing,
            blank_ms=self.blank_ms,
            unjudged=[to_part(item) for item in self._unjudged],
            inbox=[to_part(item) for item in self._inbox],
            open_request=self.open_request,
            ear=None if self.ear is None else self.ear.export(),
        )

    def load(self, saved: FeedState) -> None:
        """Go on where `saved` was exported."""
        self.heard, self.finalised, self.endpointing = saved.heard, saved.finalised, saved.endpointing
        self.open_request, self.blank_ms = saved.open_request, saved.blank_ms
        self.ear = None if saved.ear is None else Ear.load(saved.ear)
        self._frames = saved.frames
        self._mel.load(saved.mel_tail)
        self._unjudged = deque(map(from_part, saved.unjudged))
        self._inbox = deque(map(from_part, saved.inbox))
        asked = [x for x in (*self._unjudged, *self._inbox, self.open_request) if isinstance(x, Request)]
        self._requests = len(asked)
        self._waiting = sum(map(length, self._unjudged)) + sum(map(length, self._inbox))
        self._pass()

    def _pass(self) -> None:
        """Let through what the detector need not hear: a rest in front of something else than audio, for instance."""
        while self._unjudged:
            first = self._unjudged[0]
            if isinstance(first, SampleQueue):
                if self.ear is not None and (len(first) >= WINDOW or len(self._unjudged) == 1):
                    break
                put(self._inbox, first.take(len(first)))
            else:
                if isinstance(first, Endpointing):
                    self._listen_as(first)
                elif first.gap and self.ear is not None:
                    self.ear = Ear(self.ear.silence_samples)
                self._inbox.append(first)
            self._unjudged.popleft()
        self._fill()

    def _listen_as(self, endpointing: Endpointing) -> None:
        if endpointing.vad_ms is None:
            self.ear = None
            return
        silence_samples = endpointing.vad_ms * SAMPLE_RATE // 1000
        self.ear = self.ear or Ear(silence_samples)
        self.ear.silence_samples = silence_samples

    def _fill(self) -> None:
        """Make mel frames, but never more than the next chunk needs: a big push costs its share at every step."""
        while self._inbox and self.open_request is None and len(self._frames) < self._width:
            first = self._inbox[0]
            if isinstance(first, Request):
                self._inbox.popleft()
                if first.gap and self.heard == self.finalised:
                    self._requests -= 1
                    self._jump(first.gap)  # nothing is pending, so no step is needed
                    continue
                self.open_request = first
                return
            if isinstance(first, Endpointing):
                self.blank_ms = first.blank_ms
                self._inbox.popleft()
                continue
            samples = first.take((self._width - len(self._frames)) * self._filters.hop)
            if not first:
                self._inbox.popleft()
            self.heard += len(samples)
            self._waiting -= len(samples)
            self._frames = np.concatenate([self._frames, self._mel.push(samples)])

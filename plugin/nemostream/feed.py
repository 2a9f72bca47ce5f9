"""The way in of a stream: samples to windows of a chunk each, with requests in their place between them.

feed.push(samples); feed.request(Request("flush", 7)); feed.push(more)
feed.chunk()      # the windows before the request, one by one (`take_chunk`), then None
feed.open_request # now the request; `more` waits until `answered`
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nemostream.errors import SnapshotError
from nemostream.gate import Gate, GateState, passes_for
from nemostream.inbox import (
    Item,
    Options,
    Part,
    Request,
    SampleQueue,
    as_float,
    from_part,
    length,
    put,
    shorten,
    to_part,
)
from nemostream.lanes import Lane, Lanes
from nemostream.mel import MelFilters
from nemostream.protocol import SAMPLE_RATE, Pcm, Samples
from nemostream.vad import WINDOW, Ear, EarState

GAP_FINALISES = SAMPLE_RATE * 400 // 1000
"""A gap this long (400 ms) finalises what is pending; a shorter one is filled with silence."""


@dataclass(slots=True)
class FeedState:
    """A Feed as plain data.

    Attributes:
        window: the samples that the next chunk's frames are made of, so far, and what is behind them.
        options, reached: Feed's.
        unjudged: what the detector has not reached.
        inbox: what the window has no room for.
    """

    window: Samples
    heard: int
    finalised: int
    options: Options
    reached: Options
    unjudged: list[Part]
    inbox: list[Part]
    open_request: Request | None
    ear: EarState | None
    gate: GateState | None


class Feed:
    """Everything of a stream before the encoder. Whatever is sent stays in its order: what a stream hears, and when a
    change of its options begins, never depends on how far the steps have come.

    Attributes:
        ear: voice activity of this stream; None while nobody asks for it.
        gate: keeps silence from the model; None while it is off.
        skipped: samples that the gate has dropped.
        options: what was asked for last.
        reached: what counts in the chunk that is next.
        lane: the window, and how far it has come.
        finalised: what was `heard` when the last request was answered.
        open_request: the request that all chunks before it have reached; audio behind it waits.
    """

    def __init__(
        self,
        filters: MelFilters,
        chunk_frames: int,
        options: Options,
        jump: Callable[[Request, bool], bool] = lambda gap, finalised: finalised,
    ) -> None:
        """`jump(gap, finalised)` is told of a gap when its turn comes, and whether all audio before it is finalised.
        True: it needed no step and is answered."""
        self.ear: Ear | None = None
        self.gate: Gate | None = None
        self.skipped = 0
        self.options = options
        self.lane = Lane(Lanes(filters, chunk_frames, 1))
        self.finalised = 0
        self.open_request: Request | None = None
        self._jump = jump
        self._step, self._span = self.lane.lanes.step, self.lane.lanes.span
        self._unjudged: deque[Item] = deque()
        self._inbox: deque[Item] = deque()
        self._requests = 0
        self._waiting = 0
        self._listen_as(options, open=False)
        self._reach(options)

    def push(self, samples: Samples | Pcm) -> None:
        """Take audio. With voice activity on, the detector goes first: so an endpoint falls on the same sample however
        the audio was cut."""
        if self.plain and self.lane.filled + len(samples) <= self.lane.lanes.room:
            self.lane.put(samples)
            return
        self._waiting += len(samples)
        put(self._unjudged, as_float(samples))
        self._pass()

    def request(self, request: Request) -> None:
        """Put a request behind all audio so far."""
        self._requests += 1
        self._unjudged.append(request)
        self._pass()

    def change(self, options: Options) -> None:
        """Put other options behind all audio so far."""
        self.options = options
        self._unjudged.append(options)
        self._pass()

    @property
    def plain(self) -> bool:
        """Nothing but the window stands in the way of audio."""
        return not (self._inbox or self._unjudged or self.ear or self.open_request)

    @property
    def heard(self) -> int:
        """Samples that the window has taken."""
        return self.lane.heard

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
        if self.gate is None:
            put(self._inbox, window)
        else:
            assert self.ear is not None
            self._let(self.gate.hear(window, self.ear.speaking))
            dropped = self.gate.drop()
            self._waiting -= dropped
            self.skipped += dropped
        if endpoint and (self.gate is None or self.gate.open):
            self._let([Request("endpoint")])
        self._pass()

    @property
    def waiting(self) -> int:
        """Samples behind the window, and not dropped."""
        return self._waiting

    @property
    def past(self) -> int:
        """Samples that need never come again: heard, or dropped."""
        return self.lane.heard + self.skipped

    @property
    def skips(self) -> bool:
        """All that came is silence, and what comes is expected to be."""
        return self.gate is not None and not (self.gate.open or self.window_ready or self.ready)

    @property
    def behind(self) -> bool:
        """More than a whole chunk waits beside the next one: the stream is catching up."""
        held = self.gate.held if self.gate else 0
        return self.lane.filled + self._waiting - held > self._span + 2 * self._step

    @property
    def tail(self) -> int:
        """Of these, how many came behind every request and have been touched by nobody, the detector included."""
        items = self._inbox if self.ear is None else self._unjudged
        return length(items[-1]) if items else 0

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

    @property
    def ready(self) -> bool:
        """There is a chunk, or a request whose turn it is."""
        return self.lane.filled >= self._span or self.open_request is not None

    def chunk(self) -> Samples | None:
        """The samples of the next chunk, if there are enough: a view."""
        return self.lane.window[: self._span] if self.lane.filled >= self._span else None

    def take_chunk(self) -> None:
        """The chunk was used."""
        self.lane.advance()
        if self._inbox:
            self._fill()

    def padded(self, steps: int) -> list[Samples]:
        """The samples of as many chunks, if only silence followed. The next one must not be complete."""
        samples = np.zeros((steps - 1) * self._step + self._span, np.float32)
        filled = self.lane.filled
        samples[:filled] = self.lane.window[:filled]
        return [samples[i * self._step :][: self._span] for i in range(steps)]

    def answered(self) -> None:
        """The open request was answered: the audio behind it may come."""
        self.open_request = None
        self.finalised = self.heard
        self._requests -= 1
        self._fill()

    def export(self, without: int = 0) -> FeedState:
        """A copy of the window; the rest is shared, and never changed in place. `without`: samples of the `tail` that
        are left out."""
        unjudged, inbox = ([to_part(item) for item in items] for items in (self._unjudged, self._inbox))
        if without:
            shorten(inbox if self.ear is None else unjudged, without)
        return FeedState(
            window=self.lane.window[: self.lane.filled].copy(),
            heard=self.heard,
            finalised=self.finalised,
            options=self.options,
            reached=self.reached,
            unjudged=unjudged,
            inbox=inbox,
            open_request=self.open_request,
            ear=None if self.ear is None else self.ear.export(),
            gate=None if self.gate is None else self.gate.export(),
        )

    def load(self, saved: FeedState) -> None:
        """Go on where `saved` was exported.

        Raises:
            SnapshotError: its window is none of this chunk size.
        """
        if saved.window.ndim != 1 or not self.lane.load(saved.window, saved.heard):
            raise SnapshotError(f"the saved stream has a window of shape {saved.window.shape}; open it without resume")
        self.finalised, self.options = saved.finalised, saved.options
        self.open_request = saved.open_request
        self._reach(saved.reached)
        self.ear = None if saved.ear is None else Ear.load(saved.ear)
        self.gate = None if saved.gate is None else Gate.load(saved.gate)
        self._unjudged = deque(map(from_part, saved.unjudged))
        self._inbox = deque(map(from_part, saved.inbox))
        asked = [x for x in (*self._unjudged, *self._inbox, self.open_request) if isinstance(x, Request)]
        self._requests = len(asked)
        self._waiting = sum(map(length, self._unjudged)) + sum(map(length, self._inbox))
        self._waiting += self.gate.held if self.gate else 0
        self._pass()

    def _pass(self) -> None:
        """Let through what the detector need not hear: a rest in front of something else than audio, for instance. What
        the gate keeps back goes first."""
        while self._unjudged:
            first = self._unjudged[0]
            judge = isinstance(first, SampleQueue) and (len(first) >= WINDOW or len(self._unjudged) == 1)
            if judge and self.ear is not None:
                break
            self._release()
            if isinstance(first, SampleQueue):
                put(self._inbox, first.take(len(first)))
            else:
                if isinstance(first, Options):
                    self._listen_as(first, open=True)
                elif first.gap and self.ear is not None:
                    self.ear = Ear(self.ear.silence_samples)
                self._inbox.append(first)
            self._unjudged.popleft()
        self._fill()

    def _listen_as(self, options: Options, open: bool) -> None:
        """`open`: a gate that was not there is. (The model has begun to hear.)"""
        vad_ms = options.endpointing.vad_ms
        self.gate = (self.gate or Gate(0, open)) if options.skip_silence else None
        if self.gate is not None:
            self.gate.passes = passes_for(options.endpointing)
        if vad_ms is None and self.gate is None:
            self.ear = None
            return
        silence_samples = None if vad_ms is None else vad_ms * SAMPLE_RATE // 1000
        self.ear = self.ear or Ear(silence_samples)
        self.ear.silence_samples = silence_samples

    def _release(self) -> None:
        if self.gate is not None:
            self._let(self.gate.release())

    def _let(self, items: Sequence[Samples | Request]) -> None:
        for item in items:
            if isinstance(item, Request):
                self._requests += 1
                self._inbox.append(item)
            else:
                put(self._inbox, item)

    def _fill(self) -> None:
        """Fill the window, as far as the next request; who asks is heard when no chunk in front is complete."""
        while self._inbox and self.open_request is None:
            first = self._inbox[0]
            if isinstance(first, SampleQueue):
                samples = first.take(self.lane.lanes.room - self.lane.filled)
                if not len(samples):
                    return
                if not first:
                    self._inbox.popleft()
                self._waiting -= len(samples)
                self.lane.put(samples)
            elif self.lane.filled >= self._span:
                return
            elif isinstance(first, Request):
                self._inbox.popleft()
                if first.reason == "gap" and self._jump(first, self.heard == self.finalised):
                    self._requests -= 1
                    self.finalised = self.heard
                    continue
                self.open_request = first
                return
            else:
                self._reach(first)
                self._inbox.popleft()

    def _reach(self, options: Options) -> None:
        self.reached = options
        self.lane.lanes.prompt[self.lane.row] = options.prompt

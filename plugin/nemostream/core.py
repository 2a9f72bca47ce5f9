"""The engine without its thread: messages in, one step at a time, events out. Everything here is deterministic.

core = Core(clock=lambda: 0.0)
core.add_model("toy", Model.load(path, "fp32", None))
core.handle("me", Open(stream=1, model="toy"))
core.handle("me", Push(1, samples, 0))
while core.step(): ...
events = core.take_events()["me"]
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from nemostream import blas, scheduler
from nemostream.errors import AudioError, EngineFull, NemostreamError, Overrun, StreamClosed, UnknownModel
from nemostream.group import Group
from nemostream.model import Model
from nemostream.protocol import (
    SAMPLE_RATE,
    Close,
    Ended,
    Event,
    Failed,
    Flush,
    Gap,
    Message,
    Mute,
    Open,
    Push,
    Refused,
    Started,
    Unmute,
    Update,
)
from nemostream.scheduler import Slot
from nemostream.stream import Stream, Work
from nemostream.vad import Vad

logger = logging.getLogger("nemostream")

IDLE_SECONDS = 0.4
"""A live stream that pushed nothing for this long (mute, DTX, a vanished peer) is finalised."""
MAX_BACKLOG = 30 * SAMPLE_RATE
"""Audio that may wait for a live stream's steps before it is closed with Overrun."""
PEEK_FROM_MS, PEEK_EVERY = 560, 240 * SAMPLE_RATE // 1000
"""Chunks from 560 ms on are looked into every 240 ms while there is nothing better to do."""
RETRY_AFTER = 1.0

Key = tuple[Hashable, int]


@dataclass(slots=True, eq=False)
class _Live:
    """A stream and its place."""

    stream: Stream
    group: Group
    slot: Slot
    last_push: float
    closing: bool = False


@dataclass(slots=True)
class Core:
    """All models, groups and streams of an engine.

    Attributes:
        max_streams: rows there are, over all models and chunk sizes.
        peek: look into long chunks while idle.
        clock: seconds, monotonic; only decides when steps start, never what they give.
    """

    max_streams: int = 256
    peek: bool = True
    clock: Callable[[], float] = time.monotonic
    models: dict[str | None, Model] = field(default_factory=dict)
    groups: dict[Hashable, Group] = field(default_factory=dict)
    _streams: dict[Key, _Live] = field(default_factory=dict)
    _events: dict[Hashable, list[Event]] = field(default_factory=dict)
    _vad: Vad | None = None

    def add_model(self, name: str | None, model: Model) -> None:
        """Make a loaded model known under `name` (None: the default)."""
        self.models[name] = model

    def __len__(self) -> int:
        return len(self._streams)

    def take_events(self) -> dict[Hashable, list[Event]]:
        """The events since the last call, by owner, in order."""
        events, self._events = self._events, {}
        return events

    # --- messages ---

    def handle(self, owner: Hashable, message: Message) -> None:
        """Take one message of `owner`; the answers are in `take_events`. Messages to streams that have ended are
        dropped, but for a Flush, whose answer somebody awaits."""
        key = owner, message.stream
        if isinstance(message, Open):
            self._open(key, message)
            return
        live = self._streams.get(key)
        if live is None or live.closing:
            if isinstance(message, Flush) and live is None:
                text = f"stream {message.stream} is not open; open it before flush"
                failed = Failed(message.stream, 0, 0, code=StreamClosed.__name__, message=text, retryable=False)
                self._emit(key, [failed])
            return
        try:
            self._tell(key, live, message)
        except AudioError as error:
            self._fail(key, live, error, retryable=False)
        else:
            self._refresh(live)

    def refuse(self, owner: Hashable, stream: int, error: NemostreamError) -> None:
        """Answer an Open with Refused."""
        after = error.retry_after if isinstance(error, EngineFull) else None
        refused = Refused(stream, 0, 0, code=type(error).__name__, message=str(error), retry_after=after)
        self._emit((owner, stream), [refused])

    def drop(self, owner: Hashable) -> None:
        """The owner is gone: free its rows, without events."""
        for key in [k for k in self._streams if k[0] == owner]:
            self._free(key)
        self._events.pop(owner, None)

    def fail_all(self, error: Exception) -> None:
        """The engine itself is broken: every stream is told and freed."""
        for key, live in list(self._streams.items()):
            self._fail(key, live, error, retryable=True)

    def _open(self, key: Key, opened: Open) -> None:
        owner, number = key
        try:
            if key in self._streams:
                raise StreamClosed(f"stream {number} is open already; choose another number")
            model = self.models.get(opened.model)
            if model is None:
                raise UnknownModel(f"model {opened.model!r} is not loaded")
            chunk_frames = model.chunk_frames(opened.chunk_ms)
            decoder = model.decoder_name(opened.decoder)
            group = self._group(model, chunk_frames)
            slot = Slot(live=opened.priority == "live")
            generation = group.take(key, decoder, slot) if len(self._streams) < self.max_streams else None
            if generation is None:
                raise EngineFull(
                    f"all {self.max_streams} streams of this engine are taken; try again later", RETRY_AFTER
                )
        except NemostreamError as error:
            self.refuse(owner, number, error)
            return
        stream = Stream(opened, model, chunk_frames, generation)
        self._streams[key] = _Live(stream, group, slot, self.clock())
        started = stream.event(
            Started,
            bundle=model.bundle.hash,
            language=opened.language or next(iter(model.bundle.info.languages), ""),
            chunk_ms=chunk_frames * model.frame_ms,
            wall_time=time.time(),
        )
        self._emit(key, [started])

    def _group(self, model: Model, chunk_frames: int) -> Group:
        group_key = (model.bundle.hash, id(model), chunk_frames)
        if group_key not in self.groups:
            self.groups[group_key] = Group(group_key, model, chunk_frames, self.max_streams)
        return self.groups[group_key]

    def _tell(self, key: Key, live: _Live, message: Message) -> None:
        stream = live.stream
        if isinstance(message, Push):
            live.last_push = self.clock()
            live.slot.expected = True
            if stream.opened.priority == "live" and stream.backlog > MAX_BACKLOG:
                self._fail(key, live, Overrun("more than 30 s of audio wait; push no faster than real time"), True)
                return
            stream.push(message.samples, message.at_sample)
            self._emit(key, stream.usage())
        elif isinstance(message, Gap):
            live.last_push = self.clock()
            stream.gap(message.samples)
        elif isinstance(message, Flush):
            stream.request("flush", message.flush_id)
        elif isinstance(message, Mute):
            live.slot.expected = False
            if stream.unfinalised:
                stream.request("idle")
        elif isinstance(message, Unmute):
            live.slot.expected = True
        elif isinstance(message, Update):
            stream.set_endpointing(message.endpointing)
        elif isinstance(message, Close):
            live.closing = True
            if message.drain and stream.unfinalised:
                stream.request("end")
            elif not (message.drain and stream.urgent):  # a flush in front of the close is still answered
                self._end(key, live)

    # --- steps ---

    def step(self) -> bool:
        """Run the next step if one is due; True if something ran (ask again at once)."""
        now = self.clock()
        self._listen()
        self._finalise_idle(now)
        plan = scheduler.choose(now, [g.load for g in self.groups.values()])
        if isinstance(plan, scheduler.Plan):
            group = self.groups[plan.key]
            streams = [self._of_row(group, r) for r in plan.rows]
            work = [live.stream.next_work() for _, live in streams]
            self._run(group, plan.rows, plan.dense, streams, [w for w in work if w is not None])
            return True
        return self.peek and self._peek(plan)

    def wake_at(self) -> float | None:
        """When `step` has something to do next, if nothing comes in before; None: never."""
        plan = scheduler.choose(self.clock(), [g.load for g in self.groups.values()])
        times = [live.last_push + IDLE_SECONDS for live in self._streams.values() if self._may_idle(live)]
        if isinstance(plan, scheduler.Plan):
            return self.clock()
        if plan is not None:
            times.append(plan)
        return min(times, default=None)

    def _run(
        self,
        group: Group,
        rows: tuple[int, ...],
        dense: int | None,
        streams: list[tuple[Key, _Live]],
        work: list[Work],
    ) -> None:
        started = self.clock()
        with blas.one_thread():
            outcomes = group.run(rows, dense, work)
        group.load.observe(dense or len(rows), self.clock() - started)
        for (key, live), w, outcome in zip(streams, work, outcomes, strict=True):
            if outcome.error is not None:
                self._fail(key, live, outcome.error, retryable=True)
                continue
            self._emit(key, live.stream.done(w, outcome.tokens))
            if live.closing and not live.stream.urgent:
                self._end(key, live)
            else:
                live.slot.ready_at = None
                self._refresh(live)

    def _peek(self, wake: float | None) -> bool:
        """With nothing else to do until `wake`: show what long, unfinished chunks hold so far."""
        for group in self.groups.values():
            if group.load.chunk_seconds * 1000 < PEEK_FROM_MS:
                continue
            spare = None if wake is None else wake - self.clock()
            seconds = group.load.row_seconds
            limit = len(group.rows) if spare is None or not seconds else int(spare / seconds)
            found: list[tuple[int, tuple[Key, _Live], Work]] = []
            for row in range(len(group.rows)):
                key, live = self._of_row(group, row)
                if len(found) < limit and live.slot.live and (work := live.stream.peek_work(PEEK_EVERY)):
                    found.append((row, (key, live), work))
            if found:
                rows, streams, works = zip(*found, strict=True)
                self._run(group, rows, None, list(streams), list(works))
                return True
        return False

    def _listen(self) -> None:
        """Voice activity for every stream that wants it, a window of all of them at a time."""
        while listening := [s for s in self._streams.values() if s.stream.ear is not None and s.stream.ear.ready]:
            self._vad = self._vad or Vad()
            ears = [live.stream.ear for live in listening if live.stream.ear is not None]
            for live, endpoint in zip(listening, self._vad.listen(ears), strict=True):
                live.stream.judged(endpoint)
                self._refresh(live)

    def _finalise_idle(self, now: float) -> None:
        for live in self._streams.values():
            if self._may_idle(live) and now - live.last_push >= IDLE_SECONDS:
                live.slot.expected = False
                live.stream.request("idle")
                self._refresh(live)

    @staticmethod
    def _may_idle(live: _Live) -> bool:
        return live.slot.live and not live.stream.urgent and live.stream.unfinalised

    def _of_row(self, group: Group, row: int) -> tuple[Key, _Live]:
        key: Key = group.rows.owner(row)  # type: ignore[assignment]
        return key, self._streams[key]

    def _refresh(self, live: _Live) -> None:
        """Tell the scheduler whether the stream has a step to take, and since when."""
        live.slot.urgent = live.stream.urgent
        if not live.stream.ready:
            live.slot.ready_at = None
        elif live.slot.ready_at is None:
            live.slot.ready_at = self.clock()

    # --- ends ---

    def _end(self, key: Key, live: _Live) -> None:
        self._emit(key, [*live.stream.usage(1), live.stream.event(Ended)])
        self._free(key)

    def _fail(self, key: Key, live: _Live, error: Exception, retryable: bool) -> None:
        logger.warning("stream %s failed: %s", key[1], error)
        failed = live.stream.event(Failed, code=type(error).__name__, message=str(error), retryable=retryable)
        self._emit(key, [*live.stream.usage(1), failed])
        self._free(key)

    def _free(self, key: Key) -> None:
        live = self._streams.pop(key)
        live.group.leave(key)

    def _emit(self, key: Key, events: Sequence[Event]) -> None:
        if events:
            self._events.setdefault(key[0], []).extend(events)

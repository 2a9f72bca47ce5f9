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

from nemostream import blas, scheduler, snapshot
from nemostream.encoders import RowState
from nemostream.errors import EngineFull, NemostreamError, Overrun, SnapshotError, StreamClosed, UnknownModel
from nemostream.group import Group
from nemostream.idle import IdleWatch
from nemostream.meter import Meter
from nemostream.model import Model
from nemostream.protocol import (
    SAMPLE_RATE,
    Checkpoint,
    Close,
    Ended,
    Event,
    Failed,
    Final,
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
from nemostream.snapshot import Snapshot
from nemostream.stream import Stream
from nemostream.vad import Vad
from nemostream.work import Work

logger = logging.getLogger("nemostream")

MAX_BACKLOG = {"live": 30 * SAMPLE_RATE, "batch": 3600 * SAMPLE_RATE}
"""Audio that may wait for a stream's steps before it is closed with Overrun."""
PEEK_FROM_MS, PEEK_EVERY = 560, 240 * SAMPLE_RATE // 1000
"""Chunks from 560 ms on are looked into every 240 ms while there is nothing better to do."""
RETRY_AFTER = 1.0
CHECKPOINT_SAMPLES = 5 * SAMPLE_RATE
"""Audio between two checkpoints of a recoverable stream: what a lost engine costs at most to hear again."""
CHECKPOINT_MESSAGES = 1000
"""Messages without audio after which there is one too."""
CHECKPOINT_PHASES = 8

Key = tuple[Hashable, int]


@dataclass(slots=True, eq=False)
class _Live:
    """A stream and its place."""

    stream: Stream
    group: Group
    slot: Slot
    closing: bool = False
    taken: int = 0
    """Messages since the Open or the last checkpoint."""
    saved_at: int = 0
    """Samples heard at the last checkpoint."""


@dataclass(slots=True)
class Core:
    """All models, groups and streams of an engine.

    Attributes:
        max_streams: rows there are, over all models and chunk sizes.
        peek: look into long chunks while idle.
        clock: seconds, monotonic; decides when steps start and which live streams have gone idle.
    """

    max_streams: int = 256
    peek: bool = True
    clock: Callable[[], float] = time.monotonic
    models: dict[str | None, Model] = field(default_factory=dict)
    groups: dict[Hashable, Group] = field(default_factory=dict)
    _streams: dict[Key, _Live] = field(default_factory=dict)
    _events: dict[Hashable, list[Event]] = field(default_factory=dict)
    _vad: Vad = field(default_factory=Vad)
    _idle: IdleWatch = field(default_factory=IdleWatch)
    _meter: Meter = field(default_factory=Meter)
    _rows_run: int = 0

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
        """Take one message of `owner`; the answers are in `take_events`. Never raises: what cannot be done ends the
        stream it was meant for. Messages to streams that have ended are dropped, but for a Flush, whose answer somebody
        awaits."""
        key = owner, message.stream
        live = self._streams.get(key)
        try:
            if isinstance(message, Open):
                self._open(key, message)
            elif live is None:
                self._miss(key, message)
            elif not live.closing:
                live.taken += 1
                self._tell(key, live, message)
                self._refresh(live)
            elif message == Close(message.stream, drain=False):
                self._end(key, live)
        except Exception as error:
            if not isinstance(error, NemostreamError):
                logger.exception("a message of stream %s cannot be taken", message.stream)
            if isinstance(message, Open):
                self.refuse(owner, message.stream, error)
            elif live is not None and key in self._streams:
                self._fail(key, live, error, retryable=isinstance(error, Overrun))

    def _miss(self, key: Key, message: Message) -> None:
        if isinstance(message, Flush):
            text = f"stream {message.stream} is not open; open it before flush"
            failed = Failed(message.stream, 0, 0, code=StreamClosed.__name__, message=text, retryable=False)
            self._emit(key, [failed])

    def refuse(self, owner: Hashable, stream: int, error: Exception) -> None:
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
        if key in self._streams:
            raise StreamClosed(f"stream {opened.stream} is open already; choose another number")
        model = self.models.get(opened.model)
        if model is None:
            raise UnknownModel(f"model {opened.model!r} is not loaded")
        language = model.language(opened.language)
        chunk_frames = model.chunk_frames(opened.chunk_ms)
        decoder = model.decoder_name(opened.decoder)
        # The stream first: once the row is taken nothing may fail.
        stream = Stream(opened, model, chunk_frames)
        saved = None if opened.resume is None else self._resume(opened.resume, stream, model, decoder)
        group = self._group(model, chunk_frames)
        slot = Slot(live=opened.priority == "live")
        full = len(self._streams) >= self.max_streams
        generation = None if full else group.take(key, decoder, slot, saved)
        if generation is None:
            raise EngineFull(f"all {self.max_streams} streams of this engine are taken; try again later", RETRY_AFTER)
        stream.generation = generation
        # Streams that were opened together are not saved in the same step.
        phase = generation % CHECKPOINT_PHASES * CHECKPOINT_SAMPLES // CHECKPOINT_PHASES
        live = self._streams[key] = _Live(stream, group, slot, saved_at=stream.feed.heard - phase)
        self._idle.heard(slot, self.clock())
        started = stream.event(
            Started,
            bundle=model.bundle.hash,
            language=language,
            chunk_ms=chunk_frames * model.frame_ms,
            wall_time=time.time(),
            at_sample=stream.at_sample,
        )
        self._emit(key, [started])
        self._refresh(live)

    def _resume(self, data: bytes, stream: Stream, model: Model, decoder: str) -> RowState:
        """Put `stream` where the snapshot was taken; what its row must hold."""
        saved = snapshot.decode(data)
        saved.check(model.bundle.hash, model.precision, stream.chunk_frames)
        if saved.row.decoder != decoder:
            raise SnapshotError(f"the saved stream decodes with {saved.row.decoder}, not {decoder}")
        stream.load(saved.stream, saved.feed)
        return saved.row

    def snapshot(self, key: Key) -> Snapshot:
        """All of a stream, between two steps; no request of it may be half answered (Stream.settled)."""
        live = self._streams[key]
        model = live.group.model
        return Snapshot(
            bundle=model.bundle.hash,
            precision=model.precision,
            chunk_frames=live.group.chunk_frames,
            stream=live.stream.export(),
            feed=live.stream.feed.export(),
            row=live.group.export(key),
        )

    def _group(self, model: Model, chunk_frames: int) -> Group:
        group_key = (model.bundle.hash, id(model), chunk_frames)
        if group_key not in self.groups:
            self.groups[group_key] = Group(group_key, model, chunk_frames, self.max_streams)
        return self.groups[group_key]

    def _tell(self, key: Key, live: _Live, message: Message) -> None:
        stream = live.stream
        if isinstance(message, Push):
            if stream.backlog + len(message.samples) > MAX_BACKLOG[stream.opened.priority]:
                seconds = MAX_BACKLOG[stream.opened.priority] // SAMPLE_RATE
                raise Overrun(f"more than {seconds} s of audio wait for the engine; push no faster than it runs")
            stream.push(message.samples, message.at_sample)
            self._idle.heard(live.slot, self.clock(), len(message.samples) / SAMPLE_RATE)
            self._emit(key, stream.usage())
        elif isinstance(message, Gap):
            stream.gap(message.samples)
            self._idle.heard(live.slot, self.clock())
        elif isinstance(message, Flush):
            stream.request("flush", message.flush_id)
        elif isinstance(message, Mute):
            live.slot.expected = False
            if stream.unfinalised:
                stream.request("idle")
        elif isinstance(message, Unmute):
            self._idle.heard(live.slot, self.clock())
        elif isinstance(message, Update):
            stream.set_endpointing(message.endpointing)
        elif isinstance(message, Close):
            live.closing = True
            if message.drain and stream.unfinalised:
                stream.request("end")
            elif not (message.drain and stream.feed.busy):  # a flush in front of the close is still answered
                self._end(key, live)

    # --- steps ---

    def step(self) -> bool:
        """Run the next step if one is due; True if something ran (ask again at once)."""
        listened = self._listen()
        self._finalise_idle()
        plan = scheduler.choose(self.clock(), self._loads())
        if isinstance(plan, scheduler.Plan):
            group = self.groups[plan.key]
            streams = [self._of_row(group, r) for r in plan.rows]
            work = [live.stream.next_work() for _, live in streams]
            self._run(group, plan.rows, plan.dense, streams, [w for w in work if w is not None])
            return True
        return self.peek and self._peek(plan) or listened

    def stats(self) -> dict[str, float]:
        """Figures for load and metrics: streams and rows, the part of time that steps take, batches so far."""
        groups = list(self.groups.values())
        steps = sum(g.counters.steps for g in groups)
        return {
            "streams": len(self._streams),
            "max_streams": self.max_streams,
            "step_share": self._meter.share(self.clock()),
            "encoder_calls": steps,
            "mean_batch": self._rows_run / steps if steps else 0.0,
            "retries": sum(g.counters.retries for g in groups),
        }

    def wake_at(self) -> float | None:
        """When `step` has something to do next, if nothing comes in before; None: never."""
        now = self.clock()
        plan = scheduler.choose(now, self._loads())
        if isinstance(plan, scheduler.Plan) or any(s.stream.feed.window_ready for s in self._streams.values()):
            return now
        times = [t for t in (plan, self._idle.due) if t is not None]
        return min(times, default=None)

    def _loads(self) -> list[scheduler.Load]:
        return [g.load for g in self.groups.values()]

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
        seconds = self.clock() - started
        group.load.cost.observe(dense or len(rows), seconds)
        self._meter.add(self.clock(), seconds)
        self._rows_run += len(rows)
        for (key, live), w, outcome in zip(streams, work, outcomes, strict=True):
            if outcome.error is not None:
                self._fail(key, live, outcome.error, retryable=True)
                continue
            try:
                events = live.stream.done(w, outcome.tokens)
            except Exception as error:
                # A defect of ours, or a snapshot that somebody else wrote: the others' results are good.
                logger.exception("stream %s cannot take its tokens", key[1])
                self._fail(key, live, error, retryable=True)
                continue
            self._emit(key, events)
            if live.closing and not live.stream.feed.busy:
                self._end(key, live)
                continue
            self._checkpoint(key, live, events)
            live.slot.ready_at = None
            self._refresh(live)

    def _checkpoint(self, key: Key, live: _Live, events: Sequence[Event]) -> None:
        """Save a recoverable stream now and then; and always with a Final that came of time, not of what was sent: a
        replay would not give it again."""
        stream = live.stream
        if not stream.opened.recoverable or not stream.settled or stream.feed.waiting > MAX_BACKLOG["live"]:
            return
        timed = any(isinstance(e, Final) and e.reason == "idle" for e in events)
        heard = live.saved_at
        due = stream.feed.heard - heard >= CHECKPOINT_SAMPLES or live.taken >= CHECKPOINT_MESSAGES
        if timed or due:
            live.saved_at = stream.feed.heard
            data = snapshot.encode(self.snapshot(key))
            self._emit(key, [stream.event(Checkpoint, taken=live.taken, snapshot=data)])
            live.taken = 0

    def _peek(self, wake: float | None) -> bool:
        """With nothing else to do until `wake`: show what long, unfinished chunks hold so far."""
        times = [t for t in (scheduler.step_bound(self._loads()), wake and wake - self.clock()) if t is not None]
        for group in self.groups.values():
            if group.load.chunk_seconds * 1000 < PEEK_FROM_MS or not times:
                continue
            limit = group.load.cost.rows_within(min(times), len(group.rows))
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

    def _listen(self) -> bool:
        """Voice activity for every stream that wants it; True if there was something to hear."""
        listening = [live for live in self._streams.values() if live.stream.feed.window_ready]
        if listening:
            self._vad.listen([live.stream.feed for live in listening])
        for live in listening:
            self._refresh(live)
        return bool(listening)

    def _finalise_idle(self) -> None:
        slots = ((live.slot, live.stream.feed.busy) for live in self._streams.values())
        gone = {id(slot) for slot in self._idle.gone(slots, self.clock())}
        for live in self._streams.values() if gone else ():
            if id(live.slot) in gone and live.stream.unfinalised:
                live.stream.request("idle")
                self._refresh(live)

    def _of_row(self, group: Group, row: int) -> tuple[Key, _Live]:
        key: Key = group.rows.owner(row)  # type: ignore[assignment]
        return key, self._streams[key]

    def _refresh(self, live: _Live) -> None:
        """Tell the scheduler whether the stream has a step to take, and since when."""
        live.slot.urgent = live.stream.urgent
        live.slot.behind = live.stream.behind
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
        self._streams.pop(key).group.leave(key)

    def _emit(self, key: Key, events: Sequence[Event]) -> None:
        if events:
            self._events.setdefault(key[0], []).extend(events)

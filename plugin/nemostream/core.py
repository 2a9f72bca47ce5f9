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
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from nemostream import admission
from nemostream.alone import collect
from nemostream.cost import Line
from nemostream.errors import EngineFull, NemostreamError, Overrun, StreamClosed
from nemostream.figures import Figures
from nemostream.group import Group, Meanwhile
from nemostream.house import House
from nemostream.idle import IdleWatch
from nemostream.intake import Intake
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
    Pushes,
    Refused,
    Unmute,
    Update,
)
from nemostream.runner import Done, Runner
from nemostream.seat import Key, Seat
from nemostream.seating import Seating
from nemostream.snapshot import Snapshot

logger = logging.getLogger("nemostream")


@dataclass(slots=True)
class Core:
    """Takes messages to its streams' seats and runs their steps.

    Attributes:
        max_streams: rows there are, over all models and chunk sizes.
        peek: look into long chunks while idle.
        max_batch: rows of a step at most; None: as time allows.
        clock: seconds, monotonic; decides when steps start and which live streams have gone idle.
    """

    max_streams: int = 256
    peek: bool = True
    max_batch: int | None = None
    clock: Callable[[], float] = time.monotonic
    _house: House = field(init=False)
    _seats: Seating = field(init=False)
    _runner: Runner = field(init=False)
    _intake: Intake = field(init=False)
    _idle: IdleWatch = field(default_factory=IdleWatch)
    _events: dict[Hashable, list[Event]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._house = House(self.max_streams, max_batch=self.max_batch)
        self._seats = Seating(self.max_streams)
        self._intake = Intake(self._seats, self._idle)
        self._runner = Runner(self._house, self._seats, self._idle, self.peek, self.clock)

    @property
    def models(self) -> Mapping[str | None, Model]:
        return self._house.models

    @property
    def groups(self) -> Mapping[Hashable, Group]:
        return self._house.groups

    def add_model(self, name: str | None, model: Model, size: int = 0, costs: Mapping[int, Line] | None = None) -> None:
        """Make a loaded model known under `name` (None: the default); see House.add."""
        self._house.add(name, model, size, costs)

    def missing(self, opened: Open) -> Callable[[], Group] | None:
        """What makes the rows that such a stream needs, where that takes seconds (House.missing)."""
        return self._house.missing(opened.model, opened.chunk_ms)

    def join(self, group: Group) -> None:
        """Rows that `missing` has made are there."""
        self._house.join(group)

    def make_room(self, wanted: int, limit: int, awaited: Collection[str | None] = ()) -> None:
        """Evict models without streams so that one of `wanted` bytes can be loaded.

        Args:
            awaited: names of models that streams are about to use.

        Raises:
            EngineFull, ModelMemory: see House.make_room.
        """
        in_use = {seat.group.model for seat in self._seats}
        awaited_too = {model for name, model in self.models.items() if name in awaited}
        if self._house.make_room(wanted, limit, in_use | awaited_too):
            collect()  # their arrays must go before more come

    def __len__(self) -> int:
        """Streams that hold a row."""
        return len(self._seats)

    def take_events(self) -> dict[Hashable, list[Event]]:
        """The events since the last call, by owner, in order."""
        events, self._events = self._events, {}
        return events

    def snapshot(self, key: Key) -> Snapshot:
        """All of a stream (Seat.snapshot)."""
        return self._seats[key].snapshot()

    # --- messages ---

    def handle(self, owner: Hashable, message: Message) -> None:
        """Take one message of `owner`; the answers are in `take_events`. Never raises: what cannot be done ends the
        stream it was meant for. Messages to streams that have ended are dropped, but for a Flush, whose answer somebody
        awaits."""
        key = owner, message.stream
        seat = self._seats.get(key)
        try:
            if isinstance(message, Open):
                self._open(key, message)
            elif seat is None:
                self._miss(key, message)
            elif not seat.closing:
                now = self.clock()
                if isinstance(message, Push):
                    self._hear(seat, message, now)
                else:
                    self._tell(seat, message, now)
                self._runner.refresh(seat, now)
            elif isinstance(message, Close) and not message.drain:
                seat.closes += 1
                seat.keep = message.keep
                self._end(seat)
        except Exception as error:
            if not isinstance(error, NemostreamError):
                logger.exception("a message of stream %s cannot be taken", message.stream)
            if isinstance(message, Open):
                self.refuse(owner, message.stream, error)
            elif seat is not None and self._seats.get(key) is seat:
                self._fail(seat, error, retryable=isinstance(error, Overrun))
        if self._seats.waiting:
            self._fill_rows()

    def hear(self, owner: Hashable, pushes: Pushes) -> None:
        """Take audio of many streams: as `handle` of each, but faster. Never raises either."""
        try:
            left = self.hear_plain(owner, pushes)
        except Exception as error:
            self.deafen(owner, pushes, error)
            return
        for push in left:
            self.handle(owner, push)

    def hear_plain(self, owner: Hashable, pushes: Pushes) -> list[Push]:
        """Take what of that audio only has to go into windows, which may be done while a step runs on a device; what is
        left, in order, is for `handle`. What it raises is for `deafen`, once no step runs."""
        now = self.clock()
        left, due = self._intake.take(owner, pushes, now)
        for seat in due:
            self._emit(seat.key, seat.stream.usage())
            self._runner.refresh(seat, now)
        return left

    def deafen(self, owner: Hashable, pushes: Pushes, error: Exception) -> None:
        """A defect of ours, or no memory: what was taken of it cannot be told, and a word may not be lost unsaid."""
        logger.error("audio of %d streams cannot be taken", len(pushes), exc_info=error)
        for stream in pushes.streams:
            if (seat := self._seats.get((owner, stream))) is not None:
                self._fail(seat, error, retryable=True)

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
        for seat in list(self._seats):
            if seat.key[0] == owner:
                self._leave(seat)
        self._fill_rows()
        self._events.pop(owner, None)

    def fail_all(self, error: Exception) -> None:
        """The engine itself is broken: every stream is told and freed."""
        for seat in list(self._seats):
            self._fail(seat, error, retryable=True)

    def _open(self, key: Key, opened: Open) -> None:
        """A live stream gets its row now or is refused now; a batch stream may have to wait for one."""
        if self._seats.get(key) is not None:
            raise StreamClosed(f"stream {opened.stream} is open already; choose another number")
        group = self._house.group(opened.model, opened.chunk_ms)
        seat = Seat(key, opened, group)
        if seat.live:
            if opened.resume is None:  # who goes on was let in before
                admission.check_time([g.load for g in self.groups.values()], group.load, self.clock())
            if self._seats.full:
                self._park_one()
        self._seats.add(seat)
        self._house.touch(group.model)
        if seat.live:
            self._sit(seat)

    def _park_one(self) -> None:
        """Free a row that a batch stream has; it goes on later as if nothing had happened."""
        seat = self._seats.newest_batch()
        if seat is None:
            return
        while seat.seated and not seat.stream.settled:
            # Every batch stream is in the middle of an answer: this one's comes first, a few steps of one row.
            self._take(self._runner.run(seat.group, [seat.slot.row], None))
        if seat.seated:
            self._seats.park(seat)

    def _fill_rows(self) -> None:
        """Give rows that are free to those that wait for one."""
        while (seat := self._seats.next()) is not None:
            self._sit(seat)

    def _sit(self, seat: Seat) -> None:
        try:
            self._emit(seat.key, self._seats.sit(seat))
        except NemostreamError as error:
            self._fail(seat, error, retryable=False)
            return
        now = self.clock()
        self._idle.heard([seat.slot], now)
        self._runner.refresh(seat, now)
        if seat.closing and not seat.stream.feed.busy:
            self._end(seat)

    def _hear(self, seat: Seat, push: Push, now: float) -> None:
        stream, more = seat.stream, len(push.samples)
        # What the window holds is little: nearly always the cheap look is enough.
        if stream.feed.waiting + more > seat.limit // 2 and stream.backlog + more > seat.limit:
            seconds = seat.limit // SAMPLE_RATE
            raise Overrun(f"more than {seconds} s of audio wait for the engine; push no faster than it runs")
        goes_on = push.at_sample == stream.at_sample
        stream.push(push.samples, push.at_sample)
        seat.took(more if goes_on else None)
        self._idle.heard([seat.slot], now, [more / SAMPLE_RATE])
        if stream.feed.heard >= stream.usage_at and seat.started:
            self._emit(seat.key, stream.usage())

    def _tell(self, seat: Seat, message: Message, now: float) -> None:
        stream = seat.stream
        if isinstance(message, Close):
            self._close(seat, message)
            return
        seat.took(None)
        if isinstance(message, Gap):
            stream.gap(message.samples)
            self._idle.heard([seat.slot], now)
        elif isinstance(message, Flush):
            stream.request("flush", message.flush_id)
        elif isinstance(message, Mute):
            seat.slot.expect(False)
            if stream.unfinalised:
                stream.request("idle")
        elif isinstance(message, Unmute):
            self._idle.heard([seat.slot], now)
        elif isinstance(message, Update):
            stream.update(message)

    def _close(self, seat: Seat, message: Close) -> None:
        seat.closing, seat.keep = True, message.keep
        seat.closes += 1
        if message.drain and seat.stream.unfinalised:
            seat.stream.request("end")
        # A flush in front of the close is still answered, and who waits for a row to be started is told.
        elif not message.drain or (seat.started and not seat.stream.feed.busy):
            self._end(seat)

    # --- steps ---

    def step(self, meanwhile: Meanwhile = None) -> bool:
        """Run the next step if one is due; True if something ran (ask again at once). While it runs on a device
        `meanwhile` is called, which may `hear_plain`."""
        done = self._runner.step(meanwhile)
        if done is None:
            return False
        self._take(done)
        self._fill_rows()
        return True

    def wake_at(self) -> float | None:
        """When `step` has something to do next, if nothing comes in before; None: never."""
        return self._runner.wake_at()

    def stats(self) -> dict[str, float]:
        """Figures for load and metrics: streams and rows, the part of time that steps take (and will take, by what they
        are known to cost), batches so far."""
        groups, now = list(self.groups.values()), self.clock()
        steps = sum(g.counters.steps for g in groups)
        return {
            "streams": len(self._seats),
            "max_streams": self.max_streams,
            "waiting": self._seats.waiting,
            "step_share": self._runner.meter.share(now),
            "predicted_share": admission.share([g.load for g in groups], now),
            "encoder_calls": steps,
            "mean_batch": self._runner.rows_run / steps if steps else 0.0,
            "retries": sum(g.counters.retries for g in groups),
        }

    @property
    def figures(self) -> Figures:
        """Histograms of the steps so far."""
        return self._runner.figures

    def _take(self, done: Sequence[Done]) -> None:
        """Hand out what a step gave each stream, and see to what follows from it."""
        now = self.clock()
        for seat, result in done:
            if isinstance(result, Exception):
                self._fail(seat, result, retryable=True)
                continue
            if result:
                self._emit(seat.key, result)
            if seat.closing and not seat.stream.feed.busy:
                self._end(seat)
                continue
            if seat.stream.feed.heard >= seat.stream.usage_at:
                self._emit(seat.key, seat.stream.usage())
            if (result or seat.checkpoint_near) and (saved := seat.checkpoint(result)):
                self._emit(seat.key, saved)
            seat.slot.rest()
            self._runner.refresh(seat, now)

    # --- ends ---

    def _end(self, seat: Seat) -> None:
        if seat.started:
            self._emit(seat.key, seat.stream.usage(last=True))
        self._emit(seat.key, [*seat.last_checkpoint(), seat.stream.event(Ended)])
        self._leave(seat)

    def _fail(self, seat: Seat, error: Exception, retryable: bool) -> None:
        logger.warning("stream %s failed: %s", seat.key[1], error)
        if seat.started:
            failed = seat.stream.event(Failed, code=type(error).__name__, message=str(error), retryable=retryable)
            self._emit(seat.key, [*seat.stream.usage(last=True), failed])
        else:
            self.refuse(*seat.key, error)
        self._leave(seat)

    def _leave(self, seat: Seat) -> None:
        self._seats.remove(seat)
        self._house.touch(seat.group.model)

    def _emit(self, key: Key, events: Sequence[Event]) -> None:
        if events:
            self._events.setdefault(key[0], []).extend(events)

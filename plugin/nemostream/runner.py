"""Runs what is due: voice activity, silences, steps, looks into unfinished chunks. The core is told what came of it.

while (done := runner.step()) is not None:
    for seat, events in done: ...
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from nemostream import blas, scheduler
from nemostream.group import Group
from nemostream.house import House
from nemostream.idle import IdleWatch
from nemostream.meter import Meter
from nemostream.protocol import SAMPLE_RATE, Event
from nemostream.seat import Key, Seat
from nemostream.seating import Seating
from nemostream.vad import Vad
from nemostream.work import Work

logger = logging.getLogger("nemostream")

PEEK_FROM_MS, PEEK_EVERY = 560, 240 * SAMPLE_RATE // 1000
"""Chunks from 560 ms on are looked into every 240 ms while there is nothing better to do."""

Done = tuple[Seat, list[Event] | Exception]
"""What a step gave a stream: events, or the error that ends it."""


class Runner:
    """The steps of all groups, one at a time.

    Attributes:
        meter: the part of time that steps take.
        rows_run: over all steps so far.
    """

    def __init__(self, house: House, seats: Seating, idle: IdleWatch, peek: bool, clock: Callable[[], float]) -> None:
        self.meter = Meter()
        self.rows_run = 0
        self._listening: dict[Key, Seat] = {}
        self._house, self._seats, self._idle = house, seats, idle
        self._may_peek, self._clock = peek, clock
        self._vad = Vad()

    def refresh(self, seat: Seat, now: float) -> None:
        """Something came for that stream, or its step has run: see what it has to do."""
        seat.refresh(now)
        if seat.stream.feed.ear is not None and seat.stream.feed.window_ready:
            self._listening[seat.key] = seat

    def step(self) -> list[Done] | None:
        """Run the next step if one is due, and what must come before it. None: nothing was."""
        listened = self._listen()
        self._finalise_idle()
        plan = scheduler.choose(self._clock(), self._loads())
        if isinstance(plan, scheduler.Plan):
            group = self._house.groups[plan.key]
            return self.run(group, plan.rows, plan.dense, [self._of_row(group, r) for r in plan.rows])
        looked = self._peek(plan) if self._may_peek else None
        return [] if looked is None and listened else looked

    def wake_at(self) -> float | None:
        """When `step` has something to do next, if nothing comes in before; None: never."""
        now = self._clock()
        plan = scheduler.choose(now, self._loads())
        if isinstance(plan, scheduler.Plan) or self._listening:
            return now
        times = [t for t in (plan, self._idle.due) if t is not None]
        return min(times, default=None)

    def run(
        self,
        group: Group,
        rows: Sequence[int],
        dense: int | None,
        seats: Sequence[Seat],
        peeks: Sequence[Work] | None = None,
    ) -> list[Done]:
        """One step for these rows, whose seats these are; `peeks`: looks into unfinished chunks, in place of work."""
        work = peeks or [w for w in (seat.stream.next_work() for seat in seats) if w is not None]
        started = self._clock()
        with blas.one_thread():
            outcomes = group.run(rows, dense, work)
        now = self._clock()
        group.load.cost.observe(dense or len(rows), now - started, now)
        self.meter.add(now, now - started)
        self.rows_run += len(rows)
        done: list[Done] = []
        for seat, w, outcome in zip(seats, work, outcomes, strict=True):
            if outcome.error is not None:
                done.append((seat, outcome.error))
                continue
            try:
                done.append((seat, seat.stream.done(w, outcome.tokens)))
            except Exception as error:
                # A defect of ours, or a snapshot that somebody else wrote: the others' results are good.
                logger.exception("stream %s cannot take its tokens", seat.key[1])
                done.append((seat, error))
        return done

    def _peek(self, wake: float | None) -> list[Done] | None:
        """With nothing else to do until `wake`: show what long, unfinished chunks hold so far."""
        times = [t for t in (scheduler.step_bound(self._loads()), wake and wake - self._clock()) if t is not None]
        for group in self._house.groups.values():
            if group.load.chunk_seconds * 1000 < PEEK_FROM_MS or not times:
                continue
            limit = group.load.cost.rows_within(min(times), len(group.rows))
            found: list[tuple[int, Seat, Work]] = []
            for row in range(len(group.rows)):
                seat = self._of_row(group, row)
                if len(found) < limit and seat.live and (work := seat.stream.peek_work(PEEK_EVERY)):
                    found.append((row, seat, work))
            if found:
                rows, seats, works = zip(*found, strict=True)
                return self.run(group, rows, None, seats, works)
        return None

    def _listen(self) -> bool:
        """Voice activity for every stream that wants it; True if there was something to hear."""
        listening = [seat for key, seat in self._listening.items() if self._seats.get(key) is seat]
        self._listening = {}
        if listening:
            self._vad.listen([seat.stream.feed for seat in listening])
        now = self._clock()
        for seat in listening:
            self.refresh(seat, now)
        return bool(listening)

    def _finalise_idle(self) -> None:
        slots = ((seat.slot, seat.stream.feed.busy) for seat in self._seats)
        gone = {id(slot) for slot in self._idle.gone(slots, self._clock())}
        for seat in self._seats if gone else ():
            if id(seat.slot) in gone and seat.stream.unfinalised:
                seat.stream.request("idle")
                self.refresh(seat, self._clock())

    def _of_row(self, group: Group, row: int) -> Seat:
        key: Key = group.rows.owner(row)  # type: ignore[assignment]
        return self._seats[key]

    def _loads(self) -> list[scheduler.Load]:
        return [g.load for g in self._house.groups.values()]

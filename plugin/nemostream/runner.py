"""Runs what is due: voice activity, silences, steps, looks into unfinished chunks. The core is told what came of it.

while (done := runner.step()) is not None:
    for seat, events in done: ...
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from nemostream import blas, scheduler
from nemostream.encoders import Indices
from nemostream.errors import StepFailed
from nemostream.figures import Figures
from nemostream.group import Group, Meanwhile, Outcome
from nemostream.house import House
from nemostream.idle import IdleWatch
from nemostream.meter import Meter
from nemostream.protocol import SAMPLE_RATE, Event
from nemostream.seat import Key, Seat
from nemostream.seating import Seating
from nemostream.vad import Vad
from nemostream.work import Batch, Work

logger = logging.getLogger("nemostream")

PEEK_FROM_MS, PEEK_EVERY = 560, 240 * SAMPLE_RATE // 1000
"""Chunks from 560 ms on are looked into every 240 ms while there is nothing better to do."""

Done = tuple[Seat, list[Event] | Exception]
"""What a step gave a stream: events, or the error that ends it. Those that were given nothing, and have nothing to do,
are left out."""


class Runner:
    """The steps of all groups, one at a time.

    Attributes:
        meter: the part of time that steps take.
        rows_run: over all steps so far.
        figures: of each step.
    """

    def __init__(self, house: House, seats: Seating, idle: IdleWatch, peek: bool, clock: Callable[[], float]) -> None:
        self.meter = Meter()
        self.rows_run = 0
        self.figures = Figures()
        self._listening: dict[Key, Seat] = {}
        self._house, self._seats, self._idle = house, seats, idle
        self._may_peek, self._clock = peek, clock
        self._vad = Vad()

    def refresh(self, seat: Seat, now: float) -> None:
        """Something came for that stream, or its step has run: see what it has to do."""
        seat.refresh(now)
        if seat.stream.feed.ear is not None and seat.stream.feed.window_ready:
            self._listening[seat.key] = seat

    def step(self, meanwhile: Meanwhile = None) -> list[Done] | None:
        """Run the next step if one is due, and what must come before it. None: nothing was."""
        listened = self._listen()
        skipped: list[Done] = [(seat, []) for seat in listened if seat.seated and seat.stream.feed.skips]
        if skipped:
            return skipped  # no step tells of them, and a checkpoint may be due
        self._finalise_idle()
        plan = scheduler.choose(self._clock(), self._loads())
        if isinstance(plan, scheduler.Plan):
            group = self._house.groups[plan.key]
            self.figures.queue_delay_seconds.observe(max(0.0, self._clock() - plan.since))
            return self.run(group, plan.rows, plan.dense, meanwhile)
        looked = self._peek(plan, meanwhile) if self._may_peek else None
        return [] if looked is None and listened else looked

    def wake_at(self) -> float | None:
        """When `step` has something to do next, if nothing comes in before; None: never."""
        now = self._clock()
        plan = scheduler.choose(now, self._loads())
        if isinstance(plan, scheduler.Plan) or self._listening:
            return now
        times = [t for t in (plan, self._idle.due) if t is not None]
        return min(times, default=None)

    def run(self, group: Group, rows: Sequence[int], dense: int | None, meanwhile: Meanwhile = None) -> list[Done]:
        """One step for these rows."""
        index = np.array(rows, np.intp)
        batch = Batch.of_lanes(group.lanes, index, group.chunk_frames)
        for i in np.flatnonzero(~group.lanes.ready(index)).tolist():
            batch.put(i, self.of_row(group, rows[i]).stream.request_work())
        return self._run(group, batch, dense, meanwhile)

    def _run(self, group: Group, batch: Batch, dense: int | None, meanwhile: Meanwhile) -> list[Done]:
        started = self._clock()
        with blas.one_thread():
            outcomes = group.run(batch, dense, meanwhile)
        now = self._clock()
        group.load.cost.observe(dense or len(batch), now - started, now)
        self.meter.add(now, now - started)
        self.rows_run += len(batch)
        self.figures.step_seconds.observe(now - started)
        self.figures.batch_size.observe(len(batch))
        loud = group.lanes.restless(batch.rows) | np.fromiter(map(bool, outcomes), np.bool_, len(batch))
        loud[list(batch.work)] = True
        self._advance(group, batch.rows[~loud], now)
        return [self._done(group, batch, i, outcomes[i]) for i in np.flatnonzero(loud).tolist()]

    def _advance(self, group: Group, rows: Indices, now: float) -> None:
        """Nothing was said in the chunks of these rows, and nothing follows from it."""
        group.lanes.advance(rows)
        group.load.rest(rows.tolist())
        group.wait(rows, now)

    def _done(self, group: Group, batch: Batch, i: int, outcome: Outcome) -> Done:
        seat = self.of_row(group, int(batch.rows[i]))
        if isinstance(outcome, StepFailed):
            return seat, outcome
        try:
            return seat, seat.stream.done(outcome, batch.work.get(i))
        except Exception as error:
            # A defect of ours, or a snapshot that somebody else wrote: the others' results are good.
            logger.exception("stream %s cannot take its tokens", seat.key[1])
            return seat, error

    def _peek(self, wake: float | None, meanwhile: Meanwhile) -> list[Done] | None:
        """With nothing else to do until `wake`: show what long, unfinished chunks hold so far."""
        times = [t for t in (scheduler.step_bound(self._loads()), wake and wake - self._clock()) if t is not None]
        for group in self._house.groups.values():
            if group.load.chunk_seconds * 1000 < PEEK_FROM_MS or not times:
                continue
            limit = group.load.rows_within(min(times), len(group.rows))
            found: list[tuple[int, Work]] = []
            for row in group.lanes.unseen(len(group.rows), PEEK_EVERY).tolist():
                seat = self.of_row(group, row)
                if len(found) < limit and seat.live and (work := seat.stream.peek_work(PEEK_EVERY)):
                    found.append((row, work))
            if found:
                return self._run(group, Batch.of(*zip(*found, strict=True)), None, meanwhile)
        return None

    def _listen(self) -> list[Seat]:
        """Voice activity for every stream that wants it; those for which there was something to hear."""
        listening = [seat for key, seat in self._listening.items() if self._seats.get(key) is seat]
        self._listening = {}
        if listening:
            self._vad.listen([seat.stream.feed for seat in listening])
        now = self._clock()
        for seat in listening:
            self.refresh(seat, now)
        return listening

    def _finalise_idle(self) -> None:
        slots = ((seat.slot, seat.stream.feed.busy) for seat in self._seats)
        gone = {id(slot) for slot in self._idle.gone(slots, self._clock())}
        for seat in self._seats if gone else ():
            if id(seat.slot) in gone and seat.stream.unfinalised:
                seat.stream.request("idle")
                self.refresh(seat, self._clock())

    def of_row(self, group: Group, row: int) -> Seat:
        """Whose it is."""
        key: Key = group.rows.owner(row)  # type: ignore[assignment]
        return self._seats[key]

    def _loads(self) -> list[scheduler.Load]:
        return [g.load for g in self._house.groups.values()]

"""Who runs in the next step. Pure decisions over plain facts: no clock of its own, no model, no arrays.

    slot = Slot(); load.add(slot); slot.wait(since=now)
    plan = choose(now, loads)    # Plan: run it; float: nothing to do before that time; None: nothing to do at all

A step starts when every row that is expected to have a chunk has one, or when the oldest has waited long enough;
earliest deadline first over groups; batch streams only fill what live streams leave over. No decision looks at rows
that have nothing to do: with thousands of streams most have not.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from nemostream.cost import StepCost

NO_WAIT_BELOW = 4
"""Groups smaller than this never wait for company."""
WAIT = 0.25
"""How long the oldest ready row waits for the others, as a part of its chunk."""
CROWD = 32
CROWD_WAIT = 0.5
"""From CROWD rows on waiting longer halves the calls: two a chunk however the streams' phases lie."""
SPARE = 0.6
"""While its steps take less of the time than this a crowd waits no longer than others: an answer is worth a call."""
STEP_BOUND = 0.5
"""No step may take longer than this part of the shortest live chunk."""


class Slot:
    """What the scheduler knows of a row. Changed by its methods only: they tell the Load that it is in, if any.

    Attributes:
        ready_at: when its next chunk became complete (seconds, the engine's clock); None while it is not.
        urgent: a flush is waiting: no waiting for company.
        behind: more chunks wait behind this one: catching up waits for nobody either.
        live: it is a live stream's.
        expected: audio is flowing, so others may wait for it; False when muted or silent for a while.
        idle_at: when it counts as silent if no audio comes before.
        row: its number in the Load.
    """

    __slots__ = ("behind", "expected", "idle_at", "live", "load", "ready_at", "row", "urgent")

    def __init__(self, live: bool = True, expected: bool = True) -> None:
        self.live, self.expected = live, expected
        self.ready_at: float | None = None
        self.urgent = self.behind = False
        self.idle_at = 0.0
        self.load: Load | None = None
        self.row = -1

    def wait(self, since: float, urgent: bool = False, behind: bool = False) -> None:
        """It has something to do; it waits since then, or for longer if it did already."""
        if self.ready_at is None:
            self.ready_at = since
        self.urgent, self.behind = urgent, behind
        if self.load is not None:
            self.load.enlist(self)

    def rest(self) -> None:
        """It has nothing to do, or its step has run."""
        self.ready_at = None
        self.urgent = self.behind = False
        if self.load is not None:
            self.load.strike(self)

    def expect(self, expected: bool) -> None:
        """Audio flows, or does not."""
        if self.expected != expected:
            self.expected = expected
            if self.load is not None and self.live:
                self.load.expected += 1 if expected else -1


class Load:
    """The rows of one (model, chunk size), dense, and what their steps cost.

    Attributes:
        live: live rows.
        expected: those of which audio flows.
        ready: live rows that wait, the longest first.
        batch: batch rows that wait.
        dense: rows may ride along (Plan).
        max_batch: rows of a step at most, those that ride along included; None: as time allows.
    """

    def __init__(
        self,
        key: Hashable,
        chunk_seconds: float,
        cost: StepCost | None = None,
        dense: bool = True,
        max_batch: int | None = None,
    ) -> None:
        self.key, self.chunk_seconds, self.dense, self.max_batch = key, chunk_seconds, dense, max_batch
        self.cost = cost or StepCost()
        self.slots: list[Slot] = []
        self.live = self.expected = 0
        self.ready: dict[Slot, None] = {}
        self.batch: dict[Slot, None] = {}
        self._urgent: dict[Slot, None] = {}
        self._behind: dict[Slot, None] = {}

    def add(self, slot: Slot) -> None:
        """Put it behind the last row."""
        slot.load, slot.row = self, len(self.slots)
        self.slots.append(slot)
        self._count(slot, 1)
        if slot.ready_at is not None:
            self.enlist(slot)

    def remove(self, row: int) -> None:
        """Take that row out; the last one moves into its place."""
        slot, last = self.slots[row], self.slots.pop()
        if last is not slot:
            self.slots[row], last.row = last, row
        self._count(slot, -1)
        self.strike(slot)
        slot.load, slot.row = None, -1

    def enlist(self, slot: Slot) -> None:
        """It waits (Slot.wait)."""
        if not slot.live:
            self.batch[slot] = None
            return
        self.ready[slot] = None
        for flag, listed in ((slot.urgent, self._urgent), (slot.behind, self._behind)):
            if flag:
                listed[slot] = None
            elif listed:
                listed.pop(slot, None)

    def wait(self, rows: Iterable[int], since: float) -> None:
        """These rows, which hurry for nothing, have a chunk each: Slot.wait, for many."""
        for row in rows:
            slot = self.slots[row]
            if slot.ready_at is None:
                slot.ready_at = since
                (self.ready if slot.live else self.batch)[slot] = None

    def rest(self, rows: Iterable[int]) -> None:
        """The steps of these rows have run: Slot.rest, for many."""
        for row in rows:
            slot = self.slots[row]
            if slot.urgent or slot.behind:
                slot.rest()
            else:
                slot.ready_at = None
                (self.ready if slot.live else self.batch).pop(slot, None)

    def strike(self, slot: Slot) -> None:
        """It waits no more (Slot.rest)."""
        for listed in (self.ready, self.batch, self._urgent, self._behind):
            if listed:
                listed.pop(slot, None)

    @property
    def oldest(self) -> float:
        """Since when the first live row waits; there must be one."""
        return _ready_at(next(iter(self.ready)))

    @property
    def start(self) -> float:
        """When a step for the live rows that wait may start."""
        alone = len(self.slots) < NO_WAIT_BELOW
        if alone or len(self.ready) >= self._company or self._urgent or self._behind:
            return self.oldest
        wait = WAIT if len(self.slots) < CROWD else self._crowd_wait
        return self.oldest + wait * self.chunk_seconds

    @property
    def _crowd_wait(self) -> float:
        """The shortest wait, as a part of the chunk, whose calls take no more than SPARE of the time."""
        left = SPARE * self.chunk_seconds - self.expected * self.cost.per_row
        if not self.cost.known or left <= 0:
            return CROWD_WAIT
        return min(max(WAIT, self.cost.fixed / left), CROWD_WAIT)

    @property
    def deadline(self) -> float:
        """An urgent row is due at once, any other when its next chunk is complete."""
        due = self.oldest + self.chunk_seconds
        return min([due, *map(_ready_at, self._urgent)])

    def rows_within(self, bound: float | None, total: int) -> int:
        """Rows of `total` that a step may take to stay within `bound` seconds (None: any) and `max_batch`."""
        limit = total if bound is None else self.cost.rows_within(bound, total)
        return limit if self.max_batch is None else min(limit, self.max_batch)

    @property
    def _company(self) -> int:
        """Live rows that fill a step, or are all that will come."""
        return self.expected if self.max_batch is None else min(self.expected, self.max_batch)

    def _count(self, slot: Slot, one: int) -> None:
        if slot.live:
            self.live += one
            self.expected += one * slot.expected


@dataclass(frozen=True, slots=True)
class Plan:
    """Run these rows of that group (ascending). `dense`: as a view of the first n rows, the others riding along
    uncommitted; None: gathered. `since`: from when on the first of them waits."""

    key: Hashable
    rows: tuple[int, ...]
    dense: int | None
    since: float = field(default=0.0, compare=False)


def choose(now: float, groups: Sequence[Load]) -> Plan | float | None:
    """The next step, or the time before which there is none to take."""
    live = [group for group in groups if group.ready]
    due = [group for group in live if group.start <= now]
    if due:
        return _plan(min(due, key=lambda group: group.deadline), step_bound(groups))
    waiting = [(min(map(_ready_at, group.batch)), i) for i, group in enumerate(groups) if group.batch]
    if waiting:
        return _plan(groups[min(waiting)[1]], step_bound(groups))
    return min((group.start for group in live), default=None)


def step_bound(groups: Sequence[Load]) -> float | None:
    """Seconds that a step may take; None when nobody is live."""
    chunks = [group.chunk_seconds for group in groups if group.live]
    return STEP_BOUND * min(chunks) if chunks else None


def _ready_at(slot: Slot) -> float:
    assert slot.ready_at is not None
    return slot.ready_at


def _plan(group: Load, bound: float | None) -> Plan:
    """Live rows before batch rows, urgent ones first, then those that have waited longest; as many as may run."""
    ready = [*group.ready, *group.batch]
    total = len(group.slots)
    limit = group.rows_within(bound, total)
    since = min(_ready_at(next(iter(listed))) for listed in (group.ready, group.batch) if listed)
    if len(ready) > limit:
        ready.sort(key=lambda s: (not s.live, not s.urgent, _ready_at(s)))
        del ready[limit:]
        since = min(map(_ready_at, ready))
    rows = sorted(slot.row for slot in ready)
    dense = total if group.dense and 2 * len(rows) > total and total <= limit else None
    return Plan(group.key, tuple(rows), dense, since)

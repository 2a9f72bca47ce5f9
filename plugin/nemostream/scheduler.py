"""Who runs in the next step. Pure decisions over plain facts: no clock of its own, no model, no arrays.

    plan = choose(now, groups)    # Plan: run it; float: nothing to do before that time; None: nothing to do at all

A step starts when every row that is expected to have a chunk has one, or when the oldest has waited long enough;
earliest deadline first over groups; batch streams only fill what live streams leave over.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from nemostream.cost import StepCost

NO_WAIT_BELOW = 4
"""Groups smaller than this never wait for company."""
WAIT = 0.25
"""How long the oldest ready row waits for the others, as a part of its chunk."""
CROWD = 32
CROWD_WAIT = 0.5
"""From CROWD rows on waiting longer halves the calls: two a chunk however the streams' phases lie."""
STEP_BOUND = 0.5
"""No step may take longer than this part of the shortest live chunk."""


@dataclass(slots=True)
class Slot:
    """What the scheduler knows of a row."""

    ready_at: float | None = None
    """When its next chunk became complete (seconds, the engine's clock); None while it is not."""
    urgent: bool = False
    """A flush is waiting: no waiting for company."""
    behind: bool = False
    """More chunks wait behind this one: catching up waits for nobody either."""
    live: bool = True
    expected: bool = True
    """Audio is flowing, so others may wait for it; False when muted or silent for a while."""
    idle_at: float = 0.0
    """When it counts as silent if no audio comes before."""


@dataclass(slots=True)
class Load:
    """The rows of one (model, chunk size), dense, and what their steps cost."""

    key: Hashable
    chunk_seconds: float
    slots: list[Slot] = field(default_factory=list)
    cost: StepCost = field(default_factory=StepCost)


@dataclass(frozen=True, slots=True)
class Plan:
    """Run these rows of that group (ascending). `dense`: as a view of the first n rows, the others riding along
    uncommitted; None: gathered."""

    key: Hashable
    rows: tuple[int, ...]
    dense: int | None


def choose(now: float, groups: Sequence[Load]) -> Plan | float | None:
    """The next step, or the time before which there is none to take."""
    best: tuple[float, Load] | None = None
    wake: float | None = None
    for group in groups:
        ready = [s for s in group.slots if s.ready_at is not None and s.live]
        if not ready:
            continue
        start = _start(group, ready)
        if start <= now:
            deadline = min(_deadline(group, s) for s in ready)
            if best is None or deadline < best[0]:
                best = deadline, group
        else:
            wake = start if wake is None else min(wake, start)
    if best is not None:
        return _plan(best[1], step_bound(groups))
    waiting = [
        (_ready_at(s), i) for i, g in enumerate(groups) for s in g.slots if not s.live and s.ready_at is not None
    ]
    if waiting:
        return _plan(groups[min(waiting)[1]], step_bound(groups))
    return wake


def step_bound(groups: Sequence[Load]) -> float | None:
    """Seconds that a step may take; None when nobody is live."""
    chunks = [g.chunk_seconds for g in groups if any(s.live for s in g.slots)]
    return STEP_BOUND * min(chunks) if chunks else None


def _start(group: Load, ready: list[Slot]) -> float:
    """When a step for these ready live rows may start."""
    oldest = min(_ready_at(s) for s in ready)
    expected = sum(1 for s in group.slots if s.live and s.expected)
    if len(group.slots) < NO_WAIT_BELOW or len(ready) >= expected or any(s.urgent or s.behind for s in ready):
        return oldest
    wait = WAIT if len(group.slots) < CROWD else CROWD_WAIT
    return oldest + wait * group.chunk_seconds


def _deadline(group: Load, slot: Slot) -> float:
    """An urgent row is due at once, any other when its next chunk is complete."""
    return _ready_at(slot) + (0.0 if slot.urgent else group.chunk_seconds)


def _ready_at(slot: Slot) -> float:
    assert slot.ready_at is not None
    return slot.ready_at


def _plan(group: Load, bound: float | None) -> Plan:
    ready = [r for r, s in enumerate(group.slots) if s.ready_at is not None]
    ready.sort(key=lambda r: (not group.slots[r].live, not group.slots[r].urgent, _ready_at(group.slots[r])))
    total = len(group.slots)
    limit = total if bound is None else group.cost.rows_within(bound, total)
    rows = sorted(ready[:limit])
    dense = total if 2 * len(rows) > total and total <= limit else None
    return Plan(group.key, tuple(rows), dense)

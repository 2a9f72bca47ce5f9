"""The scheduler's promises, on plain facts and a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nemostream.cost import StepCost
from nemostream.scheduler import (
    CROWD,
    CROWD_WAIT,
    NO_WAIT_BELOW,
    SPARE,
    STEP_BOUND,
    WAIT,
    Load,
    Plan,
    Slot,
    choose,
    step_bound,
)


def load(ready: list[float | None], chunk: float = 0.08, key: str = "g", live: bool = True) -> Load:
    """A group of rows that wait since then; None: with nothing to do."""
    group = Load(key, chunk)
    for _ in ready:
        group.add(Slot(live))
    for since, slot in sorted((r, s.row) for r, s in zip(ready, group.slots, strict=True) if r is not None):
        group.slots[slot].wait(since)
    return group


def test_nothing_to_do_without_ready_rows() -> None:
    assert choose(0.0, []) is None
    assert choose(0.0, [load([None, None])]) is None


def test_a_small_group_never_waits() -> None:
    assert choose(1.0, [load([1.0, None, None])]) == Plan("g", (0,), None)


def test_a_step_starts_when_all_expected_rows_are_ready() -> None:
    group = load([1.0, 1.0, 1.0, 1.0])
    assert choose(1.0, [group]) == Plan("g", (0, 1, 2, 3), 4)


def test_muted_rows_are_not_waited_for() -> None:
    group = load([1.0, 1.0, 1.0, None])
    group.slots[3].expect(False)
    assert choose(1.0, [group]) == Plan("g", (0, 1, 2), 4)


def test_the_oldest_waits_a_quarter_chunk_and_no_longer() -> None:
    group = load([1.0, 1.01, None, None, None])
    assert choose(1.0, [group]) == 1.0 + WAIT * 0.08
    assert choose(1.0 + WAIT * 0.08, [group]) == Plan("g", (0, 1), None)


def test_nobody_waits_for_more_than_a_step_may_take() -> None:
    group = Load("g", 0.08, max_batch=2)
    for _ in range(5):
        group.add(Slot())
    for row in (0, 3):
        assert not isinstance(choose(1.0, [group]), Plan)
        group.slots[row].wait(1.0)
    assert choose(1.0, [group]) == Plan("g", (0, 3), None)


def test_a_flush_waits_for_nobody() -> None:
    group = load([1.0, None, None, None, None])
    group.slots[0].wait(2.0, urgent=True)
    assert choose(1.0, [group]) == Plan("g", (0,), None)


def test_earliest_deadline_first_over_groups() -> None:
    short, long = load([1.0], 0.08, "short"), load([0.5], 1.12, "long")
    plan = choose(1.0, [long, short])
    assert isinstance(plan, Plan) and plan.key == "short"
    long.slots[0].rest()
    long.slots[0].wait(-0.2)
    plan = choose(1.0, [long, short])
    assert isinstance(plan, Plan) and plan.key == "long"


def test_batch_rows_only_fill_what_live_rows_leave() -> None:
    live, batch = load([1.0], key="live"), load([0.0], key="batch", live=False)
    plan = choose(1.0, [batch, live])
    assert isinstance(plan, Plan) and plan.key == "live"
    live.slots[0].rest()
    plan = choose(1.0, [batch, live])
    assert isinstance(plan, Plan) and plan.key == "batch"


def test_a_crowd_costs_two_steps_a_chunk_however_its_phases_lie() -> None:
    """64 streams, evenly spread over a chunk, one chunk each: count the steps of ten periods."""
    chunk, n, periods = 0.08, 64, 10
    group = load([None] * n, chunk)
    due = [chunk * i / n for i in range(n)]
    now, steps, served = 0.0, 0, [0] * n
    while now < chunk * periods:
        for i, slot in enumerate(group.slots):
            if slot.ready_at is None and due[i] <= now:
                slot.wait(due[i])
                due[i] += chunk
        plan = choose(now, [group])
        if isinstance(plan, Plan):
            steps += 1
            for row in plan.rows:
                served[row] += 1
                group.slots[row].rest()
        else:
            now = min(x for x in [plan, *due] if x is not None and x > now)
    assert n >= CROWD and CROWD_WAIT == 0.5
    assert steps <= 2 * periods + 1
    assert min(served) >= periods - 1


@pytest.mark.parametrize(
    ("fixed", "per_row", "wait"),
    [
        (0.001, 0.0001, WAIT),
        (0.03, 0.0001, 0.03 / (SPARE * 0.16 - 0.0064)),
        (0.04, 0.0005, CROWD_WAIT),
        (0, 1, CROWD_WAIT),
    ],
)
def test_a_crowd_waits_longer_only_where_calls_cost_too_much(fixed: float, per_row: float, wait: float) -> None:
    group = load([1.0] + [None] * 63, 0.16)
    assert choose(1.0, [group]) == 1.0 + CROWD_WAIT * 0.16, "nothing is known yet"
    for n in range(40):
        group.cost.observe(8 + n % 32, fixed + (8 + n % 32) * per_row)
    start = choose(1.0, [group])
    assert isinstance(start, float) and start == pytest.approx(1.0 + wait * 0.16)


@st.composite
def loads(draw: st.DrawFn) -> list[Load]:
    groups = []
    for k in range(draw(st.integers(1, 3))):
        chunk, most = draw(st.sampled_from([0.08, 0.16, 0.56, 1.12])), draw(st.none() | st.integers(1, 40))
        group = Load(k, chunk, max_batch=most)
        for _ in range(draw(st.integers(0, 4))):
            rows = draw(st.integers(1, 64))
            group.cost.observe(rows, draw(st.floats(0, 0.05)) + rows * draw(st.floats(1e-5, 0.01)))
        now = 0.0
        for _ in range(draw(st.integers(0, 40))):
            slot = Slot(live=draw(st.booleans()), expected=draw(st.booleans()))
            group.add(slot)
            if draw(st.booleans()):
                now += draw(st.floats(0, 0.25))
                slot.wait(now, urgent=draw(st.booleans()), behind=draw(st.booleans()))
        groups.append(group)
    return groups


@settings(deadline=None)
@given(loads(), st.floats(0, 20))
def test_every_plan_is_sound(groups: list[Load], now: float) -> None:
    plan = choose(now, groups)
    ready = [s for g in groups for s in g.slots if s.ready_at is not None]
    if plan is None:
        assert not ready
    elif isinstance(plan, float):
        assert plan > now
        assert all(s.live for s in ready)
    else:
        group = next(g for g in groups if g.key == plan.key)
        assert list(plan.rows) == sorted(set(plan.rows))
        assert all(group.slots[r].ready_at is not None for r in plan.rows)
        batch = plan.dense or len(plan.rows)
        assert batch >= len(plan.rows) > 0
        bound = step_bound(groups)
        if bound is not None:
            assert batch <= group.cost.rows_within(bound, len(group.slots))
        assert batch <= (group.max_batch or batch)
        assert plan.since == min(_since(group.slots[row]) for row in plan.rows)


@settings(deadline=None)
@given(loads())
def test_nobody_starves(groups: list[Load]) -> None:
    """With no new audio, every ready row runs within a bounded number of steps."""
    now = 20.0
    total = sum(s.ready_at is not None for g in groups for s in g.slots)
    for _ in range(total):
        plan = choose(now, groups)
        if plan is None:
            break
        assert isinstance(plan, Plan), "rows that have waited for seconds wait no longer"
        group = next(g for g in groups if g.key == plan.key)
        for row in plan.rows:
            group.slots[row].rest()
    assert not any(s.ready_at is not None for g in groups for s in g.slots)


def test_a_stream_that_is_catching_up_waits_for_nobody() -> None:
    group = load([1.0, None, None, None, None])
    group.slots[0].wait(2.0, behind=True)
    assert choose(1.0, [group]) == Plan("g", (0,), None)


def test_batch_streams_of_two_groups_take_turns() -> None:
    first, second = load([1.0], key="first", live=False), load([0.5], key="second", live=False)
    plan = choose(1.0, [first, second])
    assert isinstance(plan, Plan) and plan.key == "second"


@settings(deadline=None)
@given(st.floats(0, 0.05), st.floats(1e-5, 0.01), st.lists(st.integers(1, 64), min_size=5, max_size=40))
def test_the_two_parts_of_a_cost_are_found(fixed: float, per_row: float, sizes: list[int]) -> None:
    cost = StepCost()
    for n in sizes:
        cost.observe(n, fixed + n * per_row)
    if len(set(sizes[-5:])) > 2 and max(sizes[-5:]) - min(sizes[-5:]) > 8:
        assert abs(cost.per_row - per_row) < 1e-3 * per_row + 1e-9
        assert abs(cost.fixed - fixed) < 1e-3 * fixed + 1e-6


@settings(deadline=None)
@given(st.floats(1e-3, 0.06), st.floats(1e-5, 2e-3), st.integers(2, 64))
def test_batches_grow_until_they_keep_up(fixed: float, per_row: float, streams: int) -> None:
    """Streams join one by one; each step takes what the true cost says. If a full batch fits, nobody falls behind."""
    chunk = 0.16
    if fixed + streams * per_row > STEP_BOUND * chunk * 0.8:
        return
    group = Load("g", chunk)
    now, due = 0.0, []
    worst = 0.0
    while now < 40 * chunk + streams * 0.05:
        if len(group.slots) < streams and now >= 0.05 * len(group.slots):
            group.add(Slot())
            due.append(now + chunk)
        for i, slot in enumerate(group.slots):
            if slot.ready_at is None and due[i] <= now:
                slot.wait(due[i])
                due[i] += chunk
        plan = choose(now, [group])
        if isinstance(plan, Plan):
            worst = max([now - (group.slots[r].ready_at or 0) for r in plan.rows]) if now > 20 * chunk else 0.0
            seconds = fixed + (plan.dense or len(plan.rows)) * per_row
            group.cost.observe(plan.dense or len(plan.rows), seconds)
            now += seconds
            for row in plan.rows:
                group.slots[row].rest()
        else:
            now = min(t for t in [plan, *due, now + 0.05] if t is not None and t > now)
    assert worst < 2 * chunk


def test_a_step_that_was_stopped_says_nothing_of_steps() -> None:
    """SIGSTOP, or a machine that slept: three seconds once; a machine that is slower from now on does count."""
    cost = StepCost()
    for n in range(40):
        cost.observe(8, 0.010, n * 0.16)
    cost.observe(8, 3.0, 10.0)
    predicted = cost.predict(8, 1, 10.0)
    assert predicted is not None and predicted < 0.013
    for n in range(60):
        cost.observe(8, 0.100, 10.0 + n * 0.16)
    assert (cost.predict(8, 1, 20.0) or 0.0) > 0.08


class Rule(RuleBasedStateMachine):
    """Whatever happens to slots, a Load's lists say what a look at every slot would."""

    def __init__(self) -> None:
        super().__init__()
        self.load = Load("g", 0.08)
        self.out: list[Slot] = []
        self.now = 0.0

    @rule(live=st.booleans(), expected=st.booleans())
    def new(self, live: bool, expected: bool) -> None:
        self.load.add(Slot(live, expected))

    @precondition(lambda self: self.load.slots)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        row = data.draw(st.integers(0, len(self.load.slots) - 1))
        self.out.append(self.load.slots[row])
        self.load.remove(row)

    @precondition(lambda self: self.out)
    @rule()
    def come_back(self) -> None:
        slot = self.out.pop()
        if slot.live:
            slot.rest()  # only batch streams are parked with something to do
        self.load.add(slot)

    @precondition(lambda self: self.load.slots or self.out)
    @rule(data=st.data(), urgent=st.booleans(), behind=st.booleans(), later=st.floats(0, 0.1))
    def wait(self, data: st.DataObject, urgent: bool, behind: bool, later: float) -> None:
        self.now += later
        data.draw(st.sampled_from([*self.load.slots, *self.out])).wait(self.now, urgent, behind)

    @precondition(lambda self: self.load.slots or self.out)
    @rule(data=st.data())
    def rest(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([*self.load.slots, *self.out])).rest()

    @precondition(lambda self: self.load.slots or self.out)
    @rule(data=st.data(), expected=st.booleans())
    def expect(self, data: st.DataObject, expected: bool) -> None:
        data.draw(st.sampled_from([*self.load.slots, *self.out])).expect(expected)

    @invariant()
    def holds(self) -> None:
        slots = self.load.slots
        assert [s.row for s in slots] == list(range(len(slots))) and all(s.load is self.load for s in slots)
        assert all(s.load is None for s in self.out)
        live = [s for s in slots if s.live]
        assert self.load.live == len(live) and self.load.expected == sum(s.expected for s in live)
        ready = [s for s in live if s.ready_at is not None]
        assert set(self.load.ready) == set(ready)
        assert set(self.load.batch) == {s for s in slots if not s.live and s.ready_at is not None}
        if ready:
            assert self.load.oldest == min(_since(s) for s in ready)
            due = min(_since(s) + (0.0 if s.urgent else 0.08) for s in ready)
            assert self.load.deadline == due
            hurry = len(slots) < NO_WAIT_BELOW or len(ready) >= self.load.expected
            hurry |= any(s.urgent or s.behind for s in ready)
            assert (self.load.start == self.load.oldest) == hurry


def _since(slot: Slot) -> float:
    assert slot.ready_at is not None
    return slot.ready_at


TestLoad = Rule.TestCase

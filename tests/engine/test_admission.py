"""Whether there is time for one more live stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemostream import admission
from nemostream.cost import FRESH_SECONDS, Line, StepCost
from nemostream.errors import EngineFull
from nemostream.model import Model
from nemostream.protocol import Checkpoint, Started
from nemostream.scheduler import Load, Slot
from tests.engine.conftest import utterance
from tests.engine.driver import Driver

COST = Line(0.02, 0.003)
"""Seconds of a step at 80 ms: two calls a chunk and eight rows take 64 ms, 80 % of it."""


def crowded(model: Model, **opened: object) -> Driver:
    """Eight live streams at 80 ms: as many as there is time for."""
    driver = Driver(model, chunk_ms=80, max_streams=64, costs={1: COST}, **opened)
    for i in range(8):
        driver.open(i)
        assert driver.of(i, Started)
    return driver


def test_a_stream_for_which_there_is_no_time_is_refused_before_any_step(toy: Model) -> None:
    driver = crowded(toy)
    for i in range(8):
        driver.push(i, np.zeros(8000, np.float32), run=False)
    driver.open(8, run=False)
    refused = driver.refused(8)
    assert driver.calls == 0
    assert refused.code == "EngineFull" and refused.retry_after
    assert "8 run" in refused.message and "time" in refused.message and "\n" not in refused.message
    assert len(driver.core) == 8


def test_streams_that_are_muted_or_silent_take_no_time(toy: Model) -> None:
    driver = crowded(toy)
    driver.mute(3)
    driver.open(8)
    assert driver.of(8, Started)
    driver.open(9)
    assert driver.refused(9)
    driver.wait(1.0)
    driver.open(10)
    assert driver.of(10, Started)


def test_batch_streams_take_no_time_from_live_ones(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80, max_streams=64, costs={1: COST})
    for i in range(20):
        driver.open(100 + i, priority="batch")
        assert driver.of(100 + i, Started)
    for i in range(8):
        driver.open(i)
        assert driver.of(i, Started)
    driver.open(8)
    assert driver.refused(8)
    driver.open(200, priority="batch")
    assert driver.of(200, Started)


def test_nobody_is_refused_for_time_without_evidence(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80, max_streams=64)
    for i in range(64):
        driver.open(i)
        assert driver.of(i, Started)


def test_slow_steps_refuse_until_they_are_long_ago(toy: Model) -> None:
    """What was learnt on a busy machine refuses streams for a while only, also if no step ever corrects it."""
    driver = Driver(toy, chunk_ms=80)
    driver.open(0)
    (group,) = driver.core.groups.values()
    for _ in range(40):
        group.load.cost.observe(1, 0.3, driver.now)
    driver.open(1)
    assert driver.refused(1)
    driver.mute(0)
    driver.open(2)
    assert driver.of(2, Started), "who would be alone is never refused"
    driver.now += FRESH_SECONDS + 1
    driver.push(0, np.zeros(100, np.float32), run=False)
    driver.open(3, run=False)
    assert driver.of(3, Started)


def load_of(rows: int, cost: StepCost, chunk: float = 0.08, **slot: bool) -> Load:
    load = Load("g", chunk, cost)
    for _ in range(rows):
        load.add(Slot(**slot))
    return load


@given(st.floats(1e-4, 0.02), st.floats(1e-5, 0.005), st.integers(0, 60), st.integers(0, 10), st.integers(0, 10))
def test_the_share_is_two_calls_a_chunk_and_every_row_that_is_expected(
    fixed: float, per_row: float, rows: int, quiet: int, batch: int
) -> None:
    load = load_of(rows, StepCost(Line(fixed, per_row)))
    for slot in [Slot(expected=False) for _ in range(quiet)] + [Slot(live=False) for _ in range(batch)]:
        load.add(slot)
    capped = load.cost.rows_within(0.04, rows + 1)
    calls = max(min(2, rows + 1), -(-(rows + 1) // capped))
    wanted = (calls * fixed + (rows + 1) * per_row) / 0.08
    assert admission.share([load], 0.0, joining=load) == pytest.approx(wanted)


def test_a_long_chunk_beside_a_short_one_pays_for_its_smaller_batches() -> None:
    """Forty rows in steps of at most 40 ms: two of them in each of 20 calls, where two calls would do."""
    long = load_of(40, StepCost(Line(0.02, 0.01)), chunk=1.12)
    assert admission.share([long], 0.0) == pytest.approx((2 * 0.02 + 40 * 0.01) / 1.12)
    short = load_of(1, StepCost(Line(0.0, 0.0)))
    assert admission.share([long, short], 0.0) == pytest.approx((20 * 0.02 + 40 * 0.01) / 1.12)


def test_what_a_machine_carries_is_the_most_that_admission_takes() -> None:
    cost = StepCost(COST)
    assert admission.carries(cost, 0.08) == 8
    load = load_of(7, cost)
    admission.check_time([load], load, 0.0)
    load.add(Slot())
    with pytest.raises(EngineFull):
        admission.check_time([load], load, 0.0)


def test_who_goes_on_is_let_in_without_asking_for_time(toy: Model) -> None:
    """After a lost engine, or a reopening: it had its part of the time before; and all seem to talk at first."""
    driver = crowded(toy)
    driver.push(3, utterance(3)[:8000])
    driver.close(3, drain=False, keep=True)
    driver.open(8)
    assert driver.of(8, Started)
    driver.open(9, resume=driver.of(3, Checkpoint)[0].snapshot)
    assert driver.of(9, Started)
    driver.open(10)
    assert driver.refused(10)

"""What a step costs, learnt from the steps: a fixed part and a part for each row."""

from __future__ import annotations

import pytest

from nemostream.cost import EVIDENCE, FRESH_SECONDS, Line, StepCost


def test_steps_of_one_size_are_no_evidence_of_what_a_row_costs() -> None:
    """One stream's steps say what a call costs at least. A burst of opens must not be refused for that."""
    cost = StepCost()
    for _ in range(40):
        cost.observe(1, 0.01, 0.0)
    assert cost.weight >= EVIDENCE
    assert cost.predict(30, 2, 0.0) == pytest.approx(0.02)
    calibrated = StepCost(Line(0.004, 0.001))
    for _ in range(40):
        calibrated.observe(1, 0.01, 0.0)  # twice as slow as it was when calibrated
    assert calibrated.predict(30, 2, 0.0) == pytest.approx(2 * (2 * 0.004 + 30 * 0.001))
    assert calibrated.predict(30, 2, FRESH_SECONDS + 1) == pytest.approx(2 * 0.004 + 30 * 0.001)


def test_steps_of_one_size_keep_what_others_told_about_the_two_parts() -> None:
    """A bound must not be broken now and then because batches have had one size for long."""
    cost = StepCost()
    for rows in [*range(1, 30)] * 3 + [3] * 1000:
        cost.observe(rows, 0.01 + 0.01 * rows, 0.0)
    assert (cost.fixed, cost.per_row) == (pytest.approx(0.01), pytest.approx(0.01))
    assert cost.rows_within(0.041, 100) == 3
    for _ in range(200):
        cost.observe(3, 0.08, 0.0)  # the machine is half as fast now
    assert cost.rows_within(0.041, 100) == 1


def test_a_batch_that_takes_too_long_shrinks_though_all_steps_had_its_size() -> None:
    cost = StepCost()
    for _ in range(40):
        cost.observe(40, 0.13, 0.0)
    assert cost.rows_within(0.04, 40) < 40

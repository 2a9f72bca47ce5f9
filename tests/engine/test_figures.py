"""What an engine counts of its steps, and the most streams that one of them may run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemostream.figures import Histogram
from nemostream.model import Model
from nemostream.scheduler import WAIT
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver

CHUNK = np.zeros(1280, np.float32)
STREAMS = 8


@given(st.lists(st.floats(-1, 9)))
def test_a_value_counts_in_the_first_bucket_that_it_does_not_exceed(values: list[float]) -> None:
    bounds = (0.0, 1.0, 2.5, 4.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    for i, bound in enumerate(bounds):
        assert sum(histogram.counts[: i + 1]) == sum(value <= bound for value in values)
    assert histogram.count == len(values) and histogram.total == pytest.approx(sum(values))


def test_queue_delay_is_the_wait_of_the_stream_that_waited_longest(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    for i in range(5):
        driver.open(i)
        driver.push(i, CHUNK)  # what mel frames look ahead, so that the next push completes a chunk
    driver.wait(0.1)
    delays = driver.core.figures.queue_delay_seconds
    delays.total, before = 0.0, delays.count
    driver.push(0, CHUNK)
    driver.now += 0.005
    driver.push(1, CHUNK)
    driver.wait(0.1)
    assert delays.count == before + 1 and delays.total == pytest.approx(WAIT * 0.08)


@pytest.mark.parametrize("max_batch", [1, 3, None])
def test_a_step_has_no_more_streams_than_it_may_and_the_text_is_the_same(toy: Model, max_batch: int | None) -> None:
    samples = [utterance(i) for i in range(STREAMS)]
    driver = Driver(toy, chunk_ms=160, max_batch=max_batch)
    for i in range(STREAMS):
        driver.open(i)
    encoder = next(iter(driver.core.groups.values()))._encoder
    batches, step = [], encoder.step

    def counted(rows: int | np.ndarray, *rest: object) -> np.ndarray:
        batches.append(rows if isinstance(rows, int) else len(rows))
        return step(rows, *rest)

    encoder.step = counted  # type: ignore[method-assign]
    for start in range(0, max(map(len, samples)), 2560):
        for i in range(STREAMS):
            driver.push(i, samples[i][start : start + 2560], run=False)
        driver.wait(0.16)
    for i in range(STREAMS):
        driver.close(i)
        assert driver.text(i) == offline(toy, samples[i], chunk_ms=160)
    assert max(batches) == (max_batch or STREAMS)
    figures = driver.core.figures.batch_size
    assert figures.count == len(batches) and figures.counts[-1] == 0

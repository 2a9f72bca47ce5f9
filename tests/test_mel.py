"""The incremental front end: exact, whatever the pushes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream.mel import MelFilters, MelStream
from tests.examples import examples


@pytest.fixture(scope="module")
def filters() -> MelFilters:
    rng = np.random.default_rng(0)
    bank = np.abs(rng.standard_normal((80, 257))).astype(np.float32)
    return MelFilters(bank, np.hanning(400).astype(np.float32))


@settings(max_examples=examples(50), deadline=None)
@given(cuts=st.lists(st.integers(0, 8000), max_size=12), seed=st.integers(0, 99))
def test_frames_do_not_depend_on_how_samples_are_cut(filters: MelFilters, cuts: list[int], seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(8000).astype(np.float32)
    whole = MelStream(filters).push(samples)
    stream = MelStream(filters)
    parts = np.concatenate([stream.push(p) for p in np.split(samples, sorted(cuts))])
    assert np.array_equal(whole, parts)


def test_a_fork_leaves_the_stream_alone(filters: MelFilters) -> None:
    samples = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    stream, reference = MelStream(filters), MelStream(filters)
    stream.push(samples[:1000])
    stream.fork().push(np.zeros(5000, np.float32))
    reference.push(samples[:1000])
    assert np.array_equal(stream.push(samples[1000:]), reference.push(samples[1000:]))


def test_a_frame_is_given_as_soon_as_its_last_sample_is_known(filters: MelFilters) -> None:
    stream = MelStream(filters)
    assert len(stream.push(np.ones(199, np.float32))) == 0
    assert len(stream.push(np.ones(1, np.float32))) == 1
    assert len(stream.push(np.ones(160, np.float32))) == 1

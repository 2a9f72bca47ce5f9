"""The front end: of many rows at once as of one, of a stream's chunks as of the whole recording."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream.encoders import Floats
from nemostream.feed import Feed
from nemostream.inbox import Options
from nemostream.lanes import FRONT_FRAMES
from nemostream.mel import AT_ONCE, MelFilters
from nemostream.protocol import NO_ENDPOINT
from tests.examples import examples


@pytest.fixture(scope="module")
def filters() -> MelFilters:
    rng = np.random.default_rng(0)
    bank = np.abs(rng.standard_normal((80, 257))).astype(np.float32)
    return MelFilters(bank, np.hanning(400).astype(np.float32))


def noise(seed: int, samples: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def one(filters: MelFilters, window: Floats) -> Floats:
    """(m, n_mels): the frames of one window."""
    return filters.chunks(window[None], np.zeros(1, np.intp), len(window))[0]


def chunks(filters: MelFilters, chunk_frames: int, parts: list[Floats]) -> Floats:
    """(n, n_mels): the frames of all chunks of a stream to which `parts` are pushed, without those before it."""
    feed = Feed(filters, chunk_frames, Options(NO_ENDPOINT))
    found: list[Floats] = []
    for part in parts:
        feed.push(part)
        while (window := feed.chunk()) is not None:
            found.append(one(filters, window))
            feed.take_chunk()
    return np.concatenate(found)[FRONT_FRAMES:]


@settings(max_examples=examples(50), deadline=None)
@given(
    cuts=st.lists(st.integers(0, 40_000), max_size=12), seed=st.integers(0, 99), frames=st.sampled_from([1, 2, 7, 14])
)
def test_frames_do_not_depend_on_how_samples_are_cut(
    filters: MelFilters, cuts: list[int], seed: int, frames: int
) -> None:
    samples = noise(seed, 40_000)
    whole = chunks(filters, frames, [samples])
    assert np.array_equal(whole, chunks(filters, frames, np.split(samples, sorted(cuts))))
    np.testing.assert_allclose(whole, filters.whole(samples)[: len(whole)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [8, 16, 112])
def test_a_row_does_not_depend_on_its_neighbours(filters: MelFilters, frames: int) -> None:
    """To the bit, at every place of a batch, also where the batch is computed in parts."""
    span = filters.span(frames)
    windows = np.stack([noise(seed, span + 100) for seed in range(2 * AT_ONCE // frames + 2)])
    together = filters.chunks(windows, np.arange(len(windows)), span)
    assert together.shape == (len(windows), frames, 80)
    for row, window in enumerate(windows):
        assert np.array_equal(together[row], one(filters, window[:span]))
    assert np.array_equal(filters.chunks(windows, np.array([3, 1]), span), together[[3, 1]])


def test_a_frame_is_given_as_soon_as_its_last_sample_is_known(filters: MelFilters) -> None:
    assert [len(filters.whole(np.ones(n, np.float32))) for n in (0, 199, 200, 359, 360)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("chunk_frames", [1, 2, 7, 14])
def test_a_chunk_is_complete_with_the_last_sample_of_its_last_frame(filters: MelFilters, chunk_frames: int) -> None:
    """Frame 8Tk + 8T - 8 of chunk k, which ends 200 samples behind its middle."""
    feed = Feed(filters, chunk_frames, Options(NO_ENDPOINT))
    for k in range(3):
        last = 160 * (8 * chunk_frames * (k + 1) - 8) + 200
        feed.push(np.ones(last - feed.heard - 1, np.float32))
        assert feed.chunk() is None
        feed.push(np.ones(1, np.float32))
        assert feed.chunk() is not None
        feed.take_chunk()


def test_what_is_padded_is_silence(filters: MelFilters) -> None:
    samples, silence = noise(1, 3000), np.zeros(6000, np.float32)
    feed = Feed(filters, 2, Options(NO_ENDPOINT))
    feed.push(samples[:1000])
    padded = np.concatenate([one(filters, window) for window in feed.padded(3)])[FRONT_FRAMES:]
    spoken = filters.whole(np.concatenate([samples[:1000], silence]))[: len(padded)]
    np.testing.assert_allclose(padded, spoken, rtol=1e-4, atol=1e-4)
    feed.push(samples[1000:])
    other = Feed(filters, 2, Options(NO_ENDPOINT))
    other.push(samples)
    left, right = feed.chunk(), other.chunk()
    assert left is not None and right is not None and np.array_equal(left, right), "the stream was left alone"

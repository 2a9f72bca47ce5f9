"""Silero as the second source of endpoints: speech that stops is finalised without waiting for blanks or a chunk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream.model import Model
from nemostream.models import catalog
from nemostream.protocol import Endpointing, Final
from tests.clips import clip
from tests.engine.driver import Driver
from tests.examples import examples

VAD = Endpointing(blank_ms=None, vad_ms=300)


@pytest.fixture(scope="module")
def english() -> Model:
    return Model.load(catalog.resolve(None), "int8", 1)


def spoken() -> np.ndarray:
    """Two sentences, a second of near-silence behind each."""
    quiet = (0.001 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    return np.concatenate([quiet, clip("monday"), quiet, clip("refund"), quiet])


def run(model: Model, parts: list[np.ndarray], **opened: object) -> tuple[Driver, list[tuple[int, Final]]]:
    """Push the parts; each Final with the number of samples pushed when it came."""
    driver = Driver(model, decoder="ctc", **opened)
    driver.open(1)
    seen: list[tuple[int, Final]] = []
    pushed = 0
    for part in parts:
        driver.push(1, part)
        pushed += len(part)
        seen += [(pushed, f) for f in driver.finals(1)[len(seen) :]]
    return driver, seen


@pytest.mark.parametrize("chunk_ms", [80, 1120])
def test_a_sentence_is_final_soon_after_it_was_spoken(english: Model, chunk_ms: int) -> None:
    samples = spoken()
    _, seen = run(english, np.split(samples, range(320, len(samples), 320)), chunk_ms=chunk_ms, endpointing=VAD)
    assert [f.reason for _, f in seen] == ["endpoint", "endpoint"]
    assert all(f.text for _, f in seen)
    ends = [16_000 + len(clip("monday")), 32_000 + len(clip("monday")) + len(clip("refund"))]
    for end, (at, _) in zip(ends, seen, strict=True):
        # The clips end with a little silence of their own.
        assert end - 8_000 <= at <= end + 8_000


@settings(max_examples=examples(5), deadline=None)
@given(cuts=st.lists(st.floats(0, 1), max_size=20))
def test_endpoints_do_not_depend_on_how_samples_are_cut(english: Model, cuts: list[float]) -> None:
    samples = spoken()
    driver, _ = run(english, [samples], chunk_ms=560, endpointing=VAD)
    parts = np.split(samples, sorted(int(c * len(samples)) for c in cuts))
    other, _ = run(english, parts, chunk_ms=560, endpointing=VAD)
    assert [(f.text, f.words) for f in driver.finals(1)] == [(f.text, f.words) for f in other.finals(1)]


def test_the_detector_can_be_switched_on_and_off(english: Model) -> None:
    samples = spoken()
    driver = Driver(english, decoder="ctc", chunk_ms=560)
    driver.open(1)
    driver.update(1, VAD)
    driver.push(1, samples[:100])
    driver.update(1, Endpointing(blank_ms=None))
    driver.push(1, samples[100:])
    assert not driver.finals(1)
    driver.close(1)
    plain, _ = run(english, [samples], chunk_ms=560)
    plain.close(1)
    assert driver.text(1) == plain.text(1)


def test_many_streams_are_heard_as_one_batch(english: Model) -> None:
    samples = spoken()
    alone, _ = run(english, [samples], chunk_ms=560, endpointing=VAD)
    driver = Driver(english, decoder="ctc", chunk_ms=560, endpointing=VAD)
    for i in range(8):
        driver.open(i)
    for start in range(0, len(samples), 1600):
        for i in range(8):
            driver.push(i, samples[start : start + 1600], run=False)
        driver.run()
    assert all([f.text for f in driver.finals(i)] == [f.text for f in alone.finals(1)] for i in range(8))

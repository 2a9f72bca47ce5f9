"""What a stream's text does not depend on, and what a flush may and may not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream.model import Model
from nemostream.protocol import Endpointing, Final
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver, noise
from tests.examples import examples
from tests.speech import WORDS, synth
from tests.words import changes

CHUNKS = [80, 160, 560, 1120]
chunks = pytest.mark.parametrize("chunk_ms", CHUNKS)
seeds = st.integers(0, 10_000)


@chunks
@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
@settings(max_examples=examples(8), deadline=None)
@given(seed=seeds, cuts=st.lists(st.floats(0, 1), max_size=30))
def test_text_does_not_depend_on_how_samples_are_cut(
    toy: Model, chunk_ms: int, decoder: str, seed: int, cuts: list[float]
) -> None:
    samples = utterance(seed)
    driver = Driver(toy, chunk_ms=chunk_ms, decoder=decoder, endpointing=Endpointing())
    for part in np.split(samples, sorted(int(c * len(samples)) for c in cuts)):
        if not driver.events:
            driver.open(1)
        driver.push(1, part)
    driver.close(1)
    whole = Driver(toy, chunk_ms=chunk_ms, decoder=decoder, endpointing=Endpointing())
    whole.open(1)
    whole.push(1, samples)
    whole.close(1)
    plain = [(f.text, f.words, f.reason) for f in driver.finals(1)]
    assert plain == [(f.text, f.words, f.reason) for f in whole.finals(1)]


@chunks
@settings(max_examples=examples(4), deadline=None)
@given(seed=seeds, join=st.integers(0, 30), precision=st.sampled_from(["fp32", "int8"]))
def test_text_does_not_depend_on_batch_neighbours(
    toy: Model, toy_int8: Model, chunk_ms: int, seed: int, join: int, precision: str
) -> None:
    """One stream alone, and among 63 others that join, talk, shout and leave around it."""
    model = toy if precision == "fp32" else toy_int8
    samples = utterance(seed)
    alone = offline(model, samples, chunk_ms=chunk_ms)
    driver = Driver(model, chunk_ms=chunk_ms, max_streams=64)
    rng = np.random.default_rng(seed)
    others = {i: noise(rng, len(samples), level=float(rng.choice([0.0, 0.1, 1.0]))) for i in range(1, 64)}
    for i in list(others)[:join]:
        driver.open(i)
    driver.open(0)
    for i in list(others)[join:]:
        driver.open(i)
    block = 1600
    for tick, start in enumerate(range(0, len(samples), block)):
        for i, other in list(others.items()):
            if rng.random() < 0.01 and tick:
                driver.close(i, drain=bool(rng.random() < 0.5))
                del others[i]
            elif rng.random() < 0.9:
                driver.push(i, other[start : start + block], run=False)
        driver.push(0, samples[start : start + block], run=False)
        driver.now += 0.1
        driver.run()
    driver.close(0)
    assert driver.text(0) == alone


@chunks
@settings(max_examples=examples(10), deadline=None)
@given(seed=seeds, at=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_a_flush_anywhere_gives_one_final_and_changes_one_word_at_most(
    toy: Model, chunk_ms: int, seed: int, at: list[float]
) -> None:
    samples = utterance(seed, 8)
    words = offline(toy, samples, chunk_ms=chunk_ms).split()
    driver = Driver(toy, chunk_ms=chunk_ms)
    driver.open(0)
    cuts = sorted(int(a * len(samples)) for a in at)
    for flush_id, part in enumerate(np.split(samples, cuts)[:-1], 1):
        driver.push(0, part)
        driver.flush(0, flush_id)
    driver.push(0, samples[cuts[-1] :])
    driver.close(0)
    answers = [f.flush_id for f in driver.finals(0) if f.flush_id is not None]
    assert answers == list(range(1, len(cuts) + 1))
    got = driver.text(0).split()
    lost, added = changes(words, got)
    # The word that spans a flush may come out as two: the silence behind it cuts it short.
    assert lost <= len(cuts) and added <= 2 * len(cuts), (words, got)


@chunks
@settings(max_examples=examples(10), deadline=None)
@given(seed=seeds, where=st.floats(0, 1))
def test_a_flush_in_silence_changes_nothing(toy: Model, chunk_ms: int, seed: int, where: float) -> None:
    """No speech from 400 ms before the flush to P behind it."""
    rng = np.random.RandomState(seed)
    said = [WORDS[i] for i in rng.randint(0, len(WORDS), 6)]
    first, second = synth(said[:3], rng, tail=0.4), synth(said[3:], rng, lead=0.32)
    pause = (0.003 * rng.randn(8000)).astype(np.float32)
    samples = np.concatenate([first, pause, second])
    flush = len(first) + int(where * len(pause))
    driver = Driver(toy, chunk_ms=chunk_ms)
    driver.open(0)
    driver.push(0, samples[:flush])
    driver.flush(0, 1)
    driver.push(0, samples[flush:])
    driver.close(0)
    assert driver.text(0) == offline(toy, samples, chunk_ms=chunk_ms)


@chunks
def test_every_token_arrives_before_the_next_chunk(toy: Model, chunk_ms: int) -> None:
    """Pushed a chunk at a time, what a chunk holds is shown before the next one is pushed."""
    samples = np.concatenate([utterance(5), np.zeros(16000, np.float32)])
    driver = Driver(toy, chunk_ms=chunk_ms)
    driver.open(0)
    frame_ms, step = 80, chunk_ms * 16
    for start in range(0, len(samples) - step, step):
        driver.push(0, samples[start : start + step])
        done = len(driver.tokens[0])
        assert driver.chunks[0] * chunk_ms == (start + step) // 16
        shown = "".join(toy.vocabulary.surface(t) for t in driver.tokens[0])
        assert driver.shown(0).replace(" ", "") == shown, f"{done} tokens by {driver.chunks[0] * frame_ms} ms"


@chunks
def test_64_streams_cost_two_calls_a_chunk(toy: Model, chunk_ms: int) -> None:
    """Live streams of every phase, paced: at most two encoder calls in a chunk's time."""
    driver = Driver(toy, chunk_ms=chunk_ms, max_streams=64)
    rng = np.random.default_rng(0)
    for i in range(64):
        driver.open(i)
    audio = [noise(rng, 16 * chunk_ms * 6) for _ in range(64)]
    tick = 10
    phase = [int(p) for p in rng.integers(0, chunk_ms // tick, 64)]
    for now in range(0, 5 * chunk_ms, tick):
        if now == 2 * chunk_ms:
            before = driver.calls
        for i in range(64):
            if now >= phase[i] * tick:
                at = (now - phase[i] * tick) * 16
                driver.push(i, audio[i][at : at + 16 * tick], run=False)
        driver.wait(tick / 1000)
    assert driver.calls - before <= 2 * 3


def test_a_final_never_changes_and_numbers_never_skip(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80, endpointing=Endpointing(blank_ms=160))
    driver.open(0)
    driver.push(0, utterance(1, 12))
    driver.close(0)
    assert [e.sequence for e in driver.events[0]] == list(range(1, len(driver.events[0]) + 1))
    assert len({e.generation for e in driver.events[0]}) == 1
    # So short a pause may cut a word in two, but no letter is lost, doubled or moved.
    assert driver.text(0).replace(" ", "") == offline(toy, utterance(1, 12), chunk_ms=80).replace(" ", "")
    assert all(isinstance(f, Final) and f.text for f in driver.finals(0))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
def test_neighbours_do_not_move_a_single_bit(toy: Model, toy_int8: Model, decoder: str, precision: str) -> None:
    """Beside full-scale noise, beside silence and beside speech, at equal batch size: tokens, frames and the exact
    probabilities are the same."""
    samples = utterance(11)
    rng = np.random.default_rng(0)
    neighbours = [
        lambda i: noise(rng, len(samples), 1.0).clip(-1, 1),
        lambda i: np.zeros(len(samples), np.float32),
        lambda i: np.resize(utterance(20 + i), len(samples)),
    ]
    heard = []
    for neighbour in neighbours:
        driver = Driver(toy if precision == "fp32" else toy_int8, chunk_ms=160, decoder=decoder)
        for i in range(8):
            driver.open(i)
        others = [neighbour(i) for i in range(8)]
        for start in range(0, len(samples), 2560):
            for i in range(8):
                driver.push(i, (samples if i == 5 else others[i])[start : start + 2560], run=False)
            driver.run()
        heard.append(driver.tokens[5])
    assert heard[0] == heard[1] == heard[2] and len(heard[0]) > 5

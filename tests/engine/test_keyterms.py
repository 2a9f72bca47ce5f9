"""A stream's keyterms on their way to its row: when they begin to count, and for whom."""

from __future__ import annotations

import pytest

from nemostream import snapshot
from nemostream.errors import KeytermsError
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Failed, Refused, Update
from tests.engine.driver import Driver, load
from tests.speech import utterance

TERMS = {
    "rnnt": ("hello world", "please call", "streaming", "github"),
    "ctc": tuple("then con and of pro reason in is sun this http pyth ex the com function github zone end".split()),
}
"""Some that change what the random model says; it is sure of little."""
Tokens = list[tuple[int, int]]


@pytest.fixture(scope="module")
def random(random_bundle: Bundle) -> Model:
    """It is sure of nothing, so that terms change what it says."""
    return load(random_bundle.path)


def tokens(driver: Driver, stream: int) -> Tokens:
    return [(t.id, t.frame) for t in driver.tokens[stream]]


def said(model: Model, terms: tuple[str, ...], decoder: str, seed: int, *words: int) -> Tokens:
    driver = Driver(model, chunk_ms=160, decoder=decoder, keyterms=terms)
    driver.open(1)
    driver.push(1, utterance(seed, *words)[1])
    return tokens(driver, 1)


@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
def test_neighbours_with_other_terms_change_nothing(random: Model, decoder: str) -> None:
    lists = [(), TERMS[decoder], TERMS[decoder][:1], ("stop",)]
    driver = Driver(random, chunk_ms=160, decoder=decoder, max_streams=8)
    streams = [(seed, i) for seed in (0, 3) for i in range(len(lists))]
    for n, (_, i) in enumerate(streams):
        driver.open(n, keyterms=lists[i])
    for start in range(0, 110_000, 4000):
        for n, (seed, _) in enumerate(streams):
            driver.push(n, utterance(seed)[1][start : start + 4000], run=False)
        driver.run()
    alone = {(seed, i): said(random, lists[i], decoder, seed) for seed, i in streams}
    assert {stream: tokens(driver, n) for n, stream in enumerate(streams)} == alone
    assert any(alone[seed, 0] != alone[seed, 1] for seed in (0, 3)), "terms change something"


def test_other_terms_count_from_the_next_segment_on_however_the_audio_was_cut(random: Model) -> None:
    """Sent in the middle of a segment, which a flush ends later; the last time all at once, before any step."""
    asked, flushed, samples = 12_800, 40_000, utterance(8, 8)[1]

    def run(change: bool, block: int = 2000) -> Tokens:
        driver = Driver(random, chunk_ms=160, decoder="ctc")
        driver.open(1)
        for begin, end in ((0, asked), (asked, flushed), (flushed, 100_000)):
            if begin == flushed:
                driver.flush(1, 1, run=block < flushed)
            elif begin and change:
                driver.send(Update(1, keyterms=TERMS["ctc"]), run=block < flushed)
            for start in range(begin, end, block):
                driver.push(1, samples[start : min(start + block, end)], run=block < flushed)
        driver.run()
        return tokens(driver, 1)

    plain, changed = run(False), run(True)
    before = flushed // 2560 * 2
    assert [t for t in changed if t[1] < before] == [t for t in plain if t[1] < before]
    assert [t for t in said(random, TERMS["ctc"], "ctc", 8, 8) if asked // 1280 <= t[1] < before] != [
        t for t in plain if asked // 1280 <= t[1] < before
    ], "the terms would have changed the rest of the segment"
    assert [t for t in changed if t[1] >= before + 8] != [t for t in plain if t[1] >= before + 8]
    assert [run(True, block) for block in (700, 20_000, flushed)] == [changed] * 3


@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
def test_a_stream_goes_on_within_a_term(random: Model, decoder: str) -> None:
    """Its state holds where in the terms its row is: between any two chunks another engine may take over."""
    seed = {"rnnt": 3, "ctc": 12}[decoder]
    samples, whole = utterance(seed)[1], said(random, TERMS[decoder], decoder, seed)
    assert whole != said(random, (), decoder, seed)
    first = Driver(random, chunk_ms=160, decoder=decoder, keyterms=TERMS[decoder])
    first.open(1)
    for start in range(0, len(samples), 3 * 2560):
        data = snapshot.encode(first.core.snapshot(("driver", 1)))
        second = Driver(random, chunk_ms=160, decoder=decoder, keyterms=TERMS[decoder])
        second.open(1, resume=data)
        second._pushed[1] = start
        second.push(1, samples[start:])
        assert tokens(first, 1) + tokens(second, 1) == whole
        first.push(1, samples[start : start + 3 * 2560])


def test_terms_that_cannot_be_used_are_refused_or_end_the_stream_typed(random: Model) -> None:
    driver = Driver(random)
    driver.open(1, keyterms=("a" * 101,))
    (refused,) = driver.of(1, Refused)
    assert refused.code == KeytermsError.__name__ and refused.retry_after is None
    driver.open(2)
    driver.send(Update(2, keyterms=("yes",) * 1001))
    (failed,) = driver.of(2, Failed)
    assert failed.code == KeytermsError.__name__ and not failed.retryable

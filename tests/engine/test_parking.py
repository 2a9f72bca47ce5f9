"""Live before batch: who has a row, who is parked, who waits, and that parking changes nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream import seating
from nemostream.greedy import Token
from nemostream.model import Model
from nemostream.protocol import Ended, Endpointing, Failed, Started, Usage
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver
from tests.examples import examples

BATCH = 3
PARTS = 6


def plain(driver: Driver, stream: int) -> list[tuple[object, ...]]:
    """All that a stream said for good, without confidences: those move in their last bits with the batch's size."""
    return [
        (f.text, [(w.text, w.start_sample, w.end_sample) for w in f.words], f.reason, f.flush_id, f.end_sample)
        for f in driver.finals(stream)
    ]


def frames(tokens: list[Token]) -> list[tuple[int, int]]:
    return [(t.id, t.frame) for t in tokens]


@pytest.mark.usefixtures("loud_is_speech")
@settings(max_examples=examples(8), deadline=None)
@given(
    seed=st.integers(0, 10_000),
    chunk_ms=st.sampled_from([160, 560]),
    endpointing=st.sampled_from([Endpointing(), Endpointing(blank_ms=None, vad_ms=200)]),
    skips=st.booleans(),
    moves=st.lists(st.sampled_from(["open", "close", "step", "step", "part", "part"]), min_size=10, max_size=60),
)
def test_batch_streams_that_are_parked_at_any_moment_say_the_same(
    toy: Model, seed: int, chunk_ms: int, endpointing: Endpointing, skips: bool, moves: list[str]
) -> None:
    """Three files on two rows, flushes in them, and live streams that come and go between any two steps."""
    sent = []
    for i in range(BATCH):
        messages = []
        pause = np.zeros(32_000 if skips else 0, np.float32)
        samples = np.concatenate([pause, utterance(seed + i, 3), pause, utterance(seed + i + 1, 2)])
        for n, part in enumerate(np.array_split(samples, PARTS)):
            messages += [("push", part), ("flush", n)] if n % 2 else [("push", part)]
        sent.append(messages)

    def tell(driver: Driver, stream: int, kind: str, what: object, run: bool) -> None:
        if kind == "push":
            driver.push(stream, what, run=run)  # type: ignore[arg-type]
        else:
            driver.flush(stream, what, run=run)  # type: ignore[arg-type]

    driver = Driver(toy, chunk_ms=chunk_ms, max_streams=2, endpointing=endpointing, skip_silence=skips)
    for i in range(BATCH):
        driver.open(i, priority="batch", run=False)
    left = [iter(m) for m in sent]
    live: list[int] = []
    numbers = itertools.count(100)
    turns = itertools.cycle(range(BATCH))
    for move in moves:
        if move == "open" and len(live) < 2:
            live.append(next(numbers))
            driver.open(live[-1], run=False)
            assert isinstance(driver.events[live[-1]][0], Started), "live streams never wait"
            driver.push(live[-1], utterance(seed)[:4000], run=False)
        elif move == "close" and live:
            driver.close(live.pop(0), drain=False, run=False)
        elif move == "step":
            driver.run(most=1)
        elif move == "part":
            stream = next(turns)
            for message in itertools.islice(left[stream], 1):
                tell(driver, stream, *message, run=False)
        assert len(driver.core) <= 2
    for stream, rest in enumerate(left):
        for message in rest:
            tell(driver, stream, *message, run=False)
        driver.close(stream, run=False)
    for stream in live:
        driver.close(stream, drain=False, run=False)
    driver.run()
    for stream in range(BATCH):
        alone = Driver(toy, chunk_ms=chunk_ms, max_streams=1, endpointing=endpointing, skip_silence=skips)
        alone.open(stream, priority="batch")
        for message in sent[stream]:
            tell(alone, stream, *message, run=True)
        alone.close(stream)
        assert frames(driver.tokens[stream]) == frames(alone.tokens[stream])
        assert plain(driver, stream) == plain(alone, stream)
        numbered = [e.sequence for e in driver.events[stream]]
        assert numbered == list(range(1, len(numbered) + 1))
        assert isinstance(driver.events[stream][0], Started) and isinstance(driver.events[stream][-1], Ended)
    assert len(driver.core) == 0 and not driver.core._seats.waiting


def test_the_newest_batch_stream_is_parked_and_the_oldest_goes_on_first(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80, max_streams=2)
    for i in range(3):
        driver.open(i, priority="batch")
    assert [bool(driver.of(i, Started)) for i in range(3)] == [True, True, False]
    driver.open(10)
    driver.push(0, utterance(0)[:20_000])
    assert driver.tokens[0], "the newest made room"
    driver.open(11)
    before = len(driver.tokens[0])
    for i in range(3):
        driver.push(i, utterance(i)[driver._pushed[i] :])
    assert [len(driver.tokens[i]) for i in range(3)] == [before, 0, 0]
    driver.open(12)
    refused = driver.refused(12)
    assert "all 2 rows" in refused.message and refused.retry_after
    driver.close(10)
    assert len(driver.tokens[0]) > before and not driver.tokens[1]
    driver.close(0)
    assert driver.tokens[1] and not driver.of(2, Started)
    driver.close(1)
    assert driver.of(2, Started) and driver.tokens[2]
    driver.close(2)
    for i in range(3):
        assert driver.text(i) == offline(toy, utterance(i), chunk_ms=80)


def test_too_many_waiting_batch_streams_are_refused(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seating, "MAX_WAITING", 3)
    driver = Driver(toy, chunk_ms=80, max_streams=1)
    for i in range(6):
        driver.open(i, priority="batch")
    assert driver.refused(4).code == driver.refused(5).code == "EngineFull"
    driver.open(10)
    driver.open(7, priority="batch")
    assert driver.refused(7)
    driver.close(1, drain=False)
    driver.open(8, priority="batch")
    assert not driver.events[8], "a parked stream takes nobody's place in the line"


def test_who_waits_or_is_parked_can_be_closed_and_vanish(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=560, max_streams=1)
    for i in range(5):
        driver.open(i, priority="batch")
        driver.push(i, utterance(i))
    driver.open(10)
    driver.close(0, drain=False)  # parked
    assert isinstance(driver.events[0][-1], Ended)
    assert sum(u.samples for u in driver.of(0, Usage)) == len(utterance(0))
    driver.close(1, drain=False)  # never had a row
    assert [type(e) for e in driver.events[1]] == [Ended]
    driver.close(2)
    driver.flush(3, 7)
    driver.push(4, np.array([np.nan], np.float32))
    assert driver.refused(4).code == "AudioError"
    assert not driver.events[2] and not driver.events[3]
    driver.close(10)
    assert driver.text(2) == offline(toy, utterance(2), chunk_ms=560)
    assert driver.finals(3)[-1].flush_id == 7
    driver.open(11)
    driver.open(5, priority="batch")
    driver.core.drop("driver")
    assert len(driver.core) == 0 and not driver.core._seats.waiting


def test_a_flush_of_a_parked_stream_is_answered_when_it_runs_again(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=160, max_streams=1)
    driver.open(0, priority="batch")
    driver.push(0, utterance(0))
    driver.open(1)
    driver.flush(0, 5)
    assert not driver.finals(0)
    driver.close(1)
    (final,) = driver.finals(0)
    assert final.flush_id == 5 and final.text == offline(toy, utterance(0), chunk_ms=160)


def test_a_parked_stream_that_is_sent_more_than_an_hour_is_closed(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=160, max_streams=1)
    driver.open(0, priority="batch")
    driver.open(1)
    hour = np.zeros(3600 * 16_000, np.float32)
    driver.push(0, hour)
    assert not driver.of(0, Failed)
    driver.push(0, hour[:1])
    assert driver.of(0, Failed)[0].code == "Overrun"


def test_a_stream_parked_in_the_middle_of_an_answer_gives_it_first(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80, max_streams=1)
    driver.open(0, priority="batch")
    driver.push(0, utterance(0))
    driver.flush(0, 1, run=False)
    driver.run(most=1)
    assert not driver.finals(0)
    driver.open(1, run=False)
    assert driver.finals(0)[0].flush_id == 1 and driver.of(1, Started)
    driver.close(1)
    driver.push(0, utterance(1))
    driver.close(0)
    alone = Driver(toy, chunk_ms=80)
    alone.open(0)
    alone.push(0, utterance(0))
    alone.flush(0, 1)
    alone.push(0, utterance(1))
    alone.close(0)
    assert plain(driver, 0) == plain(alone, 0)

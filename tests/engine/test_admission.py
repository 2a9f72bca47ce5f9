"""Who gets a row, and when: time and rows apart, live before batch, rows that are kept for their owner."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream import admission, seating, snapshot
from nemostream.cost import EVIDENCE, FRESH_SECONDS, Line, StepCost
from nemostream.errors import EngineFull
from nemostream.greedy import Token
from nemostream.model import Model
from nemostream.protocol import (
    Checkpoint,
    Ended,
    Endpointing,
    Failed,
    Final,
    Started,
    Usage,
)
from nemostream.scheduler import Load, Slot
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver
from tests.examples import examples

COST = Line(0.02, 0.003)
"""Seconds of a step at 80 ms: two calls a chunk and eight rows take 64 ms, 80 % of it."""


def crowded(model: Model, **opened: object) -> Driver:
    """Eight live streams at 80 ms: as many as there is time for."""
    driver = Driver(model, chunk_ms=80, max_streams=64, costs={1: COST}, **opened)
    for i in range(8):
        driver.open(i)
        assert driver.of(i, Started)
    return driver


# --- time ---


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
    return Load("g", chunk, [Slot(**slot) for _ in range(rows)], cost)


@given(st.floats(1e-4, 0.02), st.floats(1e-5, 0.005), st.integers(0, 60), st.integers(0, 10), st.integers(0, 10))
def test_the_share_is_two_calls_a_chunk_and_every_row_that_is_expected(
    fixed: float, per_row: float, rows: int, quiet: int, batch: int
) -> None:
    load = load_of(rows, StepCost(Line(fixed, per_row)))
    load.slots += [Slot(expected=False)] * quiet + [Slot(live=False)] * batch
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
    load.slots.append(Slot())
    with pytest.raises(EngineFull):
        admission.check_time([load], load, 0.0)


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


# --- live before batch ---


def plain(driver: Driver, stream: int) -> list[tuple[object, ...]]:
    """All that a stream said for good, without confidences: those move in their last bits with the batch's size."""
    return [
        (f.text, [(w.text, w.start_sample, w.end_sample) for w in f.words], f.reason, f.flush_id, f.end_sample)
        for f in driver.finals(stream)
    ]


def frames(tokens: list[Token]) -> list[tuple[int, int]]:
    return [(t.id, t.frame) for t in tokens]


BATCH = 3
PARTS = 6


@settings(max_examples=examples(8), deadline=None)
@given(
    seed=st.integers(0, 10_000),
    chunk_ms=st.sampled_from([160, 560]),
    endpointing=st.sampled_from([Endpointing(), Endpointing(blank_ms=None, vad_ms=200)]),
    moves=st.lists(st.sampled_from(["open", "close", "step", "step", "part", "part"]), min_size=10, max_size=60),
)
def test_batch_streams_that_are_parked_at_any_moment_say_the_same(
    toy: Model, seed: int, chunk_ms: int, endpointing: Endpointing, moves: list[str]
) -> None:
    """Three files on two rows, flushes in them, and live streams that come and go between any two steps."""
    sent = []
    for i in range(BATCH):
        messages = []
        for n, part in enumerate(np.array_split(utterance(seed + i), PARTS)):
            messages += [("push", part), ("flush", n)] if n % 2 else [("push", part)]
        sent.append(messages)

    def tell(driver: Driver, stream: int, kind: str, what: object, run: bool) -> None:
        if kind == "push":
            driver.push(stream, what, run=run)  # type: ignore[arg-type]
        else:
            driver.flush(stream, what, run=run)  # type: ignore[arg-type]

    driver = Driver(toy, chunk_ms=chunk_ms, max_streams=2, endpointing=endpointing)
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
        alone = Driver(toy, chunk_ms=chunk_ms, max_streams=1, endpointing=endpointing)
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


# --- kept for their owner ---


@settings(max_examples=examples(10), deadline=None)
@given(
    seed=st.integers(0, 10_000),
    chunk_ms=st.sampled_from([80, 160, 560]),
    where=st.floats(0, 1),
    vad=st.booleans(),
    gap=st.sampled_from([0, 12_345]),
)
def test_a_stream_that_is_kept_goes_on_without_the_segment_it_was_in(
    toy: Model, seed: int, chunk_ms: int, where: float, vad: bool, gap: int
) -> None:
    """Closed anywhere, gone on with in a new stream beside others: tokens, frames, words and their times are those of
    a stream that was not closed, but for the text that was pending."""
    samples = utterance(seed, 6)
    cut = int(where * len(samples))
    endpointing = Endpointing(vad_ms=240 if vad else None)
    driver = Driver(toy, chunk_ms=chunk_ms, endpointing=endpointing)
    driver.open(5)
    driver.open(1)
    driver.push(1, samples[:cut])
    driver.gap(1, gap)
    driver.close(1, drain=False, keep=True)
    *_, saved, ended = driver.events[1]
    assert isinstance(saved, Checkpoint) and isinstance(ended, Ended)
    held = snapshot.decode(saved.snapshot)
    assert not held.stream.scribe.tokens and not held.stream.scribe.shown
    assert held.feed.open_request is None or held.feed.open_request.gap
    driver.push(5, samples[:7777])
    driver.open(2, resume=saved.snapshot)
    (started,) = driver.of(2, Started)
    assert started.at_sample == cut + gap
    driver._pushed[2] = cut + gap
    driver.push(2, samples[cut:])
    driver.close(2)

    whole = Driver(toy, chunk_ms=chunk_ms, endpointing=endpointing)
    whole.open(1)
    whole.push(1, samples[:cut])
    whole.gap(1, gap)
    before = len(whole.tokens[1])
    whole.push(1, samples[cut:])
    whole.close(1)
    chunks = driver._chunks[1] * driver.core._seats[("driver", 5)].stream.chunk_frames
    tokens = [(t.id, t.frame + chunks) for t in driver.tokens[2]]
    assert tokens == frames(whole.tokens[1])[before:]

    def words(d: Driver, stream: int) -> list[tuple[str, int, int]]:
        return [(w.text, w.start_sample, w.end_sample) for f in d.finals(stream) for w in f.words]

    later, all_words = words(driver, 2), words(whole, 1)
    assert later == all_words[len(all_words) - len(later) :]
    given = words(driver, 1)
    assert given == all_words[: len(given)]
    # What is missing was pending when the stream was closed: it began before.
    missing = all_words[len(given) : len(all_words) - len(later)]
    assert all(start <= cut + gap for _, start, _ in missing)
    assert sum(u.samples for u in driver.of(1, Usage)) == cut
    assert sum(u.samples for u in driver.of(2, Usage)) == driver.of(2, Usage)[-1].total == len(samples) - cut
    assert driver.of(2, Started)[0].sequence == 1


def test_a_request_that_nobody_answered_is_not_handed_over(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    driver.open(1)
    driver.push(1, utterance(1), run=False)
    driver.flush(1, 3, run=False)
    driver.push(1, utterance(2), run=False)
    driver.close(1, drain=False, keep=True, run=False)
    (saved,) = driver.of(1, Checkpoint)
    driver.open(2, resume=saved.snapshot)
    driver._pushed[2] = len(utterance(1)) + len(utterance(2))
    driver.close(2)
    assert [f.flush_id for f in driver.finals(2)] == [None]
    both = np.concatenate([utterance(1), utterance(2)])
    assert driver.text(2) == offline(toy, both, chunk_ms=80)


def test_a_request_half_answered_cannot_be_kept(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    driver.open(1)
    driver.push(1, utterance(1))
    driver.flush(1, 3, run=False)
    driver.run(most=1)
    driver.close(1, drain=False, keep=True)
    assert not driver.of(1, Checkpoint) and isinstance(driver.events[1][-1], Ended)


def test_a_close_that_drains_says_all_and_keeps_the_rest(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    driver.open(1)
    driver.push(1, utterance(1))
    driver.close(1, keep=True)
    kinds = [type(e) for e in driver.events[1]][-4:]
    assert kinds == [Final, Usage, Checkpoint, Ended]
    driver.open(2, resume=driver.of(1, Checkpoint)[0].snapshot)
    driver._pushed[2] = len(utterance(1))
    driver.push(2, utterance(2))
    driver.close(2)
    whole = Driver(toy, chunk_ms=80)
    whole.open(1)
    whole.push(1, utterance(1))
    whole.flush(1, 1)
    whole.push(1, utterance(2))
    whole.close(1)
    assert f"{driver.text(1)} {driver.text(2)}" == whole.text(1)


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

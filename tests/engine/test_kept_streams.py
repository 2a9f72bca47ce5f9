"""A stream that was closed and kept for its owner goes on in another one, without what was pending."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream import snapshot
from nemostream.model import Model
from nemostream.protocol import Checkpoint, Ended, Endpointing, Final, Started, Usage
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver
from tests.examples import examples


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
    tokens = [(t.id, t.frame) for t in driver.tokens[2]]
    assert tokens == [(t.id, t.frame) for t in whole.tokens[1]][before:]

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
    used = driver.of(2, Usage)  # none where nothing was left to hear
    assert sum(u.samples for u in used) == (used[-1].total if used else 0) == len(samples) - cut
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

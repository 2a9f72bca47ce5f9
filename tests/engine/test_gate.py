"""Streams that skip silence: words and their times are those of what was said, and silence costs nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream import feed, snapshot
from nemostream.gate import PREROLL, passes_for
from nemostream.lanes import MAX_MESSAGES
from nemostream.model import Model
from nemostream.models import catalog
from nemostream.protocol import (
    NO_ENDPOINT,
    Checkpoint,
    Endpointing,
    Failed,
    Final,
    Open,
    Samples,
    Started,
    Update,
    Usage,
)
from nemostream.seat import CHECKPOINT_SAMPLES
from nemostream.vad import WINDOW, Vad
from tests.clips import TEXTS, clip
from tests.engine.driver import Driver
from tests.examples import examples
from tests.speech import WORDS, synth
from tests.words import changes

CHUNKS = [80, 1120]
FRAME = 1280
BLANKS = Endpointing()
HEARD = passes_for(BLANKS) + (PREROLL + 3) * WINDOW
"""Samples of a long pause that the model hears, at most."""

SILERO = Vad._judge

pytestmark = pytest.mark.usefixtures("loud_is_speech")


def silence(samples: int, seed: int = 0) -> Samples:
    return (0.003 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def say(text: str, seed: int = 0) -> Samples:
    return synth(text.split(), np.random.RandomState(seed), lead=0.1, tail=0.1)


def talk(seed: int) -> Samples:
    """Words between pauses, some too short for the gate and some long."""
    rng = np.random.RandomState(seed)
    parts = []
    for _ in range(3):
        words = [WORDS[i] for i in rng.randint(0, len(WORDS), rng.randint(1, 4))]
        parts += [silence(int(16_000 * rng.choice([0.0, 0.4, 1.2, 2.5])), seed), synth(words, rng, tail=0.0)]
    return np.concatenate([*parts, silence(rng.randint(0, 40_000), seed)])


def told(finals: list[Final]) -> list[tuple[object, ...]]:
    """All that finals say, but for confidences, whose last bits move with the batch."""
    return [
        (f.text, [(w.text, w.start_sample, w.end_sample) for w in f.words], f.reason, f.flush_id, f.end_sample)
        for f in finals
    ]


def gated(model: Model, **opened: object) -> Driver:
    driver = Driver(model, **{"skip_silence": True, "endpointing": BLANKS, **opened})
    driver.open(1)
    return driver


@pytest.mark.parametrize("chunk_ms", CHUNKS)
@settings(max_examples=examples(6), deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.floats(0, 1), max_size=30),
    endpointing=st.sampled_from([BLANKS, NO_ENDPOINT, Endpointing(None, 300), Endpointing(blank_ms=1200)]),
)
def test_events_do_not_depend_on_how_samples_are_cut(
    toy: Model, chunk_ms: int, seed: int, cuts: list[float], endpointing: Endpointing
) -> None:
    samples = talk(seed)
    whole = gated(toy, chunk_ms=chunk_ms, endpointing=endpointing)
    whole.push(1, samples)
    whole.close(1)
    driver = gated(toy, chunk_ms=chunk_ms, endpointing=endpointing)
    for part in np.split(samples, sorted(int(c * len(samples)) for c in cuts)):
        driver.push(1, part)
    driver.close(1)
    assert told(driver.finals(1)) == told(whole.finals(1))


@pytest.mark.parametrize("chunk_ms", CHUNKS)
@settings(max_examples=examples(6), deadline=None)
@given(
    seed=st.integers(0, 10_000),
    at=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["save", "flush", "mute", "gap", "update"])), max_size=6),
    late=st.booleans(),
)
def test_a_stream_that_is_saved_in_any_state_goes_on_the_same(
    toy: Model, chunk_ms: int, seed: int, at: list[tuple[float, str]], late: bool
) -> None:
    """Saved between requests of every kind, before or after the detector has heard what came, and gone on with in
    another engine: equal events."""
    samples = talk(seed)
    moments = sorted((int(where * len(samples)), what) for where, what in at)
    runs: list[list[Final]] = []
    for saves in (False, True):
        driver = gated(toy, chunk_ms=chunk_ms)
        finals: list[Final] = []
        heard = 0
        for n, (moment, what) in enumerate([*moments, (len(samples), "end")]):
            driver.push(1, samples[heard:moment], run=not late)
            heard = moment
            if what == "flush":
                driver.flush(1, n)
            elif what == "mute":
                driver.mute(1)
                driver.unmute(1)
            elif what == "gap":
                driver.gap(1, 12_345)
            elif what == "update":
                driver.update(1, Endpointing(blank_ms=800 if n % 2 else 160))
            elif what == "save" and saves:
                clock, opened = driver._pushed[1], driver.core._seats[("driver", 1)].stream.opened
                saved = snapshot.encode(driver.core.snapshot(("driver", 1)))
                waiting = driver.core._seats[("driver", 1)].stream.feed.waiting
                finals += driver.finals(1)
                driver = Driver(toy, chunk_ms=chunk_ms)
                driver.open(1, resume=saved, skip_silence=True, endpointing=opened.endpointing, run=False)
                assert driver.core._seats[("driver", 1)].stream.feed.waiting == waiting
                driver.run(most=0 if late else None)
                assert driver.of(1, Started)[0].at_sample == clock
                driver._pushed[1] = clock
        driver.close(1)
        runs.append(finals + driver.finals(1))
    assert told(runs[1]) == told(runs[0])


@pytest.mark.parametrize("chunk_ms", CHUNKS)
@settings(max_examples=examples(6), deadline=None)
@given(seed=st.integers(0, 10_000), at=st.lists(st.floats(0, 1), max_size=8))
def test_a_flush_at_any_moment_is_answered_once_at_its_time(
    toy: Model, chunk_ms: int, seed: int, at: list[float]
) -> None:
    samples = talk(seed)
    driver = gated(toy, chunk_ms=chunk_ms)
    cuts = sorted(int(a * len(samples)) for a in at)
    for flush_id, part in enumerate(np.split(samples, cuts)[:-1], 1):
        driver.push(1, part)
        driver.flush(1, flush_id)
        answer = driver.finals(1)[-1]
        assert answer.flush_id == flush_id
        if not answer.text:
            assert answer.end_sample == cuts[flush_id - 1]
    driver.push(1, samples[cuts[-1] if cuts else 0 :])
    driver.close(1)
    answers = [f.flush_id for f in driver.finals(1) if f.flush_id is not None]
    assert answers == list(range(1, len(cuts) + 1))
    words = [w for f in driver.finals(1) for w in f.words]
    for before, after in zip(words, words[1:], strict=False):
        assert before.start_sample <= before.end_sample <= after.start_sample


@settings(max_examples=examples(10), deadline=None)
@given(seed=st.integers(0, 10_000), join=st.integers(0, 5))
def test_events_do_not_depend_on_neighbours(toy: Model, seed: int, join: int) -> None:
    samples = talk(seed)
    alone = gated(toy, chunk_ms=160)
    alone.push(1, samples)
    alone.close(1)
    driver = Driver(toy, chunk_ms=160, endpointing=BLANKS)
    for i in range(2, 2 + join):
        driver.open(i, skip_silence=i % 2 == 0)
    driver.open(1, skip_silence=True)
    others = {i: talk(seed + i) for i in range(2, 2 + join)}
    for start in range(0, len(samples), 1600):
        for i, other in others.items():
            driver.push(i, other[start : start + 1600], run=False)
        driver.push(1, samples[start : start + 1600], run=False)
        driver.now += 0.1
        driver.run()
    driver.close(1)
    assert told(driver.finals(1)) == told(alone.finals(1))


@pytest.mark.parametrize("chunk_ms", [160])
def test_an_hour_of_silence_costs_a_second(toy: Model, chunk_ms: int) -> None:
    """Steps, memory and backlog are those of the words; the clock is that of the hour."""
    first, second = say("hello world"), say("call me")
    block = silence(20 * 16_000)
    driver = gated(toy, chunk_ms=chunk_ms)
    driver.push(1, first)
    way_in = driver.core._seats[("driver", 1)].stream.feed
    for _ in range(180):
        driver.push(1, block)
        assert way_in.waiting <= (PREROLL + 1) * WINDOW and not way_in.requests
        assert not way_in._inbox and len(way_in._unjudged) <= 1
    driver.push(1, second)
    driver.push(1, silence(32_000))
    driver.close(1)
    assert not driver.of(1, Failed)
    assert sum(u.samples for u in driver.of(1, Usage)) == len(first) + 3600 * 16_000 + len(second) + 32_000
    step = chunk_ms * 16
    flushes = 4 * -(-(step + toy.flush_samples) // step)
    assert driver.calls <= (len(first) + len(second) + 2 * HEARD + 2 * 16_000) // step + flushes

    plain = Driver(toy, chunk_ms=chunk_ms, endpointing=BLANKS)
    plain.open(1)
    pause = 28 * FRAME
    plain.push(1, np.concatenate([first, silence(pause), second, silence(32_000)]))
    plain.close(1)
    assert driver.text(1) == plain.text(1) == "hello world call me"
    times = [[w.start_sample for f in d.finals(1) for w in f.words] for d in (driver, plain)]
    moved = [0, 0, 3600 * 16_000 - pause, 3600 * 16_000 - pause]
    for here, there, by in zip(*times, moved, strict=True):
        assert abs(here - there - by) <= FRAME


def test_a_line_on_which_nobody_ever_speaks_takes_no_step(toy: Model) -> None:
    driver = gated(toy, chunk_ms=160)
    for _ in range(600):
        driver.push(1, silence(1600))
        driver.now += 0.1
    assert driver.calls == 0
    assert sum(u.samples for u in driver.of(1, Usage)) >= 55 * 16_000


def test_no_neighbour_waits_for_a_stream_in_silence(toy: Model) -> None:
    """Five live streams, one of them behind its gate; the others' chunks run as soon as they are complete."""
    driver = Driver(toy, chunk_ms=1120, endpointing=BLANKS)
    for i in range(5):
        driver.open(i, skip_silence=i == 4)
    for _ in range(14):
        for i in range(5):
            driver.push(i, silence(1280) if i == 4 else say("yes")[:1280], run=False)
        driver.now += 0.08
        driver.run()
    assert driver.calls == 1


def test_a_word_that_ends_its_block_is_final_when_nothing_follows(toy: Model) -> None:
    """The line falls silent with the gate just opened."""
    driver = gated(toy, chunk_ms=160)
    for _ in range(20):
        driver.push(1, silence(1600))
        driver.wait(0.1)
    driver.push(1, say("hello"))
    driver.wait(2)
    assert driver.text(1) == "hello"


@pytest.mark.parametrize("chunk_ms", [160, 1120])
@pytest.mark.parametrize("endpointing", [BLANKS, NO_ENDPOINT, Endpointing(blank_ms=2000)])
def test_text_is_final_before_the_gate_closes_for_long(toy: Model, chunk_ms: int, endpointing: Endpointing) -> None:
    """Whatever ends segments, and whatever part of a chunk is missing."""
    for frames in range(14):
        driver = gated(toy, chunk_ms=chunk_ms, endpointing=endpointing)
        driver.push(1, np.concatenate([say("yes"), silence(frames * FRAME), say("stop")]))
        driver.push(1, silence(passes_for(endpointing) + 2 * WINDOW))
        assert driver.text(1).split()[-1] == "stop"
        calls, finals = driver.calls, len(driver.finals(1))
        driver.push(1, silence(160_000))
        assert driver.calls == calls
        driver.close(1)
        assert len(driver.finals(1)) == finals


def test_a_word_whose_chunk_is_not_complete_is_not_left_behind_the_gate(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a gate closes sooner than a chunk is long."""
    monkeypatch.setattr(feed, "passes_for", lambda endpointing: 9600)
    for frames in range(14):
        driver = gated(toy, chunk_ms=1120)
        for flush_id in range(frames):  # lets a frame of silence pass
            driver.push(1, silence(FRAME))
            driver.flush(1, flush_id)
        driver.push(1, np.concatenate([say("stop"), silence(48_000)]))
        assert driver.text(1) == "stop"


def test_a_segment_that_ended_by_itself_costs_no_flush(toy: Model) -> None:
    """At the small chunks the gate closes without a step."""
    for chunk_ms in (80, 160):
        samples = np.concatenate([say("hello"), silence(48_000)])
        driver = gated(toy, chunk_ms=chunk_ms)
        driver.push(1, samples)
        (final,) = driver.finals(1)
        assert final.reason == "endpoint"
        assert driver.calls == driver.chunks[1]


def test_the_gate_can_be_put_up_and_taken_away_between_streams(toy: Model) -> None:
    """A stream that goes on with another's state has the gate that it asked for."""
    driver = gated(toy, chunk_ms=160)
    driver.push(1, silence(32_000))
    driver.close(1, keep=True)
    (saved,) = driver.of(1, Checkpoint)
    clock = driver._pushed[1]
    driver.open(2, resume=saved.snapshot, skip_silence=False)
    driver._pushed[2] = clock
    calls = driver.calls
    driver.push(2, silence(32_000))
    assert driver.calls - calls >= 32_000 // 2560 - 1
    driver.close(2, keep=True)
    driver.open(3, resume=driver.of(2, Checkpoint)[0].snapshot, skip_silence=True)
    driver._pushed[3] = clock = clock + 32_000
    calls = driver.calls
    driver.push(3, np.concatenate([silence(160_000), say("hello"), silence(32_000)]))
    assert driver.calls - calls <= (3 * HEARD) // 2560
    (final,) = driver.finals(3)
    assert final.text == "hello" and abs(final.start_sample - clock - 160_000 - 3200) <= 3200


def test_silence_is_saved_too(toy: Model) -> None:
    """A recoverable stream in silence has its checkpoints: its owner need not keep what the gate has dropped."""
    driver = gated(toy, chunk_ms=160, recoverable=True)
    for _ in range(200):
        driver.push(1, silence(1600))
        driver.now += 0.1
    saved = driver.of(1, Checkpoint)
    assert len(saved) >= 200 * 1600 // CHECKPOINT_SAMPLES - 1
    assert max(c.taken for c in saved) <= (CHECKPOINT_SAMPLES + (PREROLL + 2) * WINDOW) // 1600 + 1 < MAX_MESSAGES
    assert driver.calls == 0
    driver.send(Update(1, Endpointing(blank_ms=800)))
    driver.open(2, resume=saved[-1].snapshot, skip_silence=True)
    (started,) = driver.of(2, Started)
    assert started.at_sample == 1600 * sum(c.taken for c in saved)
    way_in = driver.core._seats[("driver", 2)].stream.feed
    assert way_in.gate and way_in.gate.held and way_in.waiting == way_in.gate.held + way_in.tail


def test_many_pauses_of_a_file_are_no_overrun(toy: Model) -> None:
    driver = gated(toy, chunk_ms=160, priority="batch")
    for i in range(40):
        driver.push(1, np.concatenate([say("yes", i), silence(30_000)]), run=False)
    driver.close(1)
    assert not driver.of(1, Failed)
    assert len(driver.finals(1)) == 40


def test_a_stream_without_it_has_no_gate() -> None:
    assert Open(1).skip_silence is False


@pytest.fixture(scope="module")
def english() -> Model:
    return Model.load(catalog.resolve(None), "int8", 1)


@pytest.mark.parametrize(("chunk_ms", "pause"), [(1120, 1.5), (160, 5.0)])
def test_speech_is_understood_as_without_the_gate(
    english: Model, monkeypatch: pytest.MonkeyPatch, chunk_ms: int, pause: float
) -> None:
    """The embedded model and Silero itself, on clips in a quiet room. Long silence confuses the model, not the gate:
    where it makes it lose words, the gate may only lose fewer."""
    monkeypatch.setattr(Vad, "_judge", SILERO)
    parts = [silence(int(pause * 16_000)) / 10]
    for name in TEXTS:
        parts += [clip(name), silence(int(pause * 16_000)) / 10]
    samples = np.concatenate(parts)
    plain, skipping = Driver(english, chunk_ms=chunk_ms), Driver(english, chunk_ms=chunk_ms)
    plain.open(1, endpointing=BLANKS)
    skipping.open(1, endpointing=BLANKS, skip_silence=True)
    for start in range(0, len(samples), 1600):
        for driver in (plain, skipping):
            driver.push(1, samples[start : start + 1600])
    plain.close(1)
    skipping.close(1)
    said = " ".join(TEXTS.values()).split()
    lost, added = changes(said, skipping.text(1).split())
    heard = sum(changes(said, plain.text(1).split()))
    assert lost + added <= heard <= len(said) / 4
    if pause < 2:
        assert skipping.text(1) == plain.text(1)
        words, others = ([w for f in d.finals(1) for w in f.words] for d in (skipping, plain))
        assert all(abs(w.start_sample - o.start_sample) <= FRAME for w, o in zip(words, others, strict=True))
    else:
        assert skipping.calls <= 0.7 * plain.calls

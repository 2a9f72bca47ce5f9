"""Times, gaps, silence and endpoints: when a segment ends, and where on the clock its words lie."""

from __future__ import annotations

import numpy as np
import pytest

from nemostream.model import Model
from nemostream.protocol import NO_ENDPOINT, Endpointing, Interim, Preflight, Push
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver
from tests.speech import synth


def silence(seconds: float) -> np.ndarray:
    return (0.003 * np.random.RandomState(9).randn(int(16_000 * seconds))).astype(np.float32)


def say(text: str, seed: int = 0) -> np.ndarray:
    return synth(text.split(), np.random.RandomState(seed), lead=0.1, tail=0.1)


@pytest.mark.parametrize("chunk_ms", [80, 1120])
def test_a_pause_ends_the_segment(toy: Model, chunk_ms: int) -> None:
    samples = np.concatenate([say("hello world"), silence(2.5), say("this is a test"), silence(2.5)])
    driver = Driver(toy, chunk_ms=chunk_ms, endpointing=Endpointing(blank_ms=800))
    driver.open(1)
    driver.push(1, samples)
    assert [(f.text, f.reason) for f in driver.finals(1)] == [
        ("hello world", "endpoint"),
        ("this is a test", "endpoint"),
    ]


def test_the_threshold_can_change_while_the_stream_runs(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80, endpointing=NO_ENDPOINT)
    driver.open(1)
    driver.push(1, np.concatenate([say("hello"), silence(2)]))
    assert not driver.finals(1)
    driver.update(1, Endpointing(blank_ms=800))
    driver.push(1, silence(0.2))
    assert [f.text for f in driver.finals(1)] == ["hello"]


def test_words_lie_where_they_were_spoken(toy: Model) -> None:
    """A word's time is that of its tokens, within the model's emission delay and an 80 ms grid."""
    pause, first, second = silence(0.5), say("hello"), say("stop")
    driver = Driver(toy, chunk_ms=80)
    driver.open(1)
    driver.push(1, np.concatenate([pause, first, pause, second, pause]))
    driver.close(1)
    words = [w for f in driver.finals(1) for w in f.words]
    assert [w.text for w in words] == ["hello", "stop"]
    distance = words[1].start_sample - words[0].start_sample
    assert abs(distance - len(first) - len(pause)) <= 2 * 1280
    assert abs(words[0].start_sample - len(pause) - 3200) <= 3200
    assert all(0 < w.confidence <= 1 and w.start_sample < w.end_sample for w in words)


def test_a_long_gap_finalises_and_moves_the_clock(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    driver.push(1, say("hello world"))
    driver.gap(1, 160_000)
    first = driver.finals(1)[-1]
    assert (first.text, first.reason) == ("hello world", "gap")
    driver.push(1, say("call me"))
    driver.close(1)
    second = driver.finals(1)[-1]
    assert second.text == "call me"
    plain = Driver(toy, chunk_ms=160)
    plain.open(1)
    plain.push(1, np.concatenate([say("hello world"), say("call me")]))
    plain.close(1)
    unmoved = plain.finals(1)[-1].words[2:]
    assert [w.start_sample - 160_000 for w in second.words] == [w.start_sample for w in unmoved]


def test_a_short_gap_is_filled_with_silence(toy: Model) -> None:
    samples = np.concatenate([say("hello world"), np.zeros(3200, np.float32), say("call me")])
    cut = len(say("hello world"))
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    driver.push(1, samples[:cut])
    driver.gap(1, 3200)
    driver.push(1, samples[cut + 3200 :])
    driver.close(1)
    assert driver.text(1) == offline(toy, samples, chunk_ms=160)


def test_audio_that_comes_again_is_not_heard_twice(toy: Model) -> None:
    samples = utterance(6)
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    for start in range(0, len(samples), 4000):
        behind = max(0, start - 2000)
        driver.send(Push(1, samples[behind : start + 4000], behind))
    driver.close(1)
    assert driver.text(1) == offline(toy, samples, chunk_ms=160)


def test_mute_finalises_and_costs_nothing(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=560)
    driver.open(1)
    driver.push(1, say("hello world"))
    driver.mute(1)
    (final,) = driver.finals(1)
    assert (final.text, final.reason) == ("hello world", "idle")
    calls = driver.calls
    driver.wait(10)
    driver.mute(1)
    assert driver.calls == calls
    driver.unmute(1)
    driver.push(1, np.concatenate([silence(0.5), say("call me back")]))
    driver.close(1)
    assert driver.text(1) == "hello world call me back"


def test_silence_on_the_line_finalises_after_400_ms(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=1120)
    driver.open(1)
    for block in np.split(say("hello world"), range(320, len(say("hello world")), 320)):
        driver.push(1, block)
    driver.wait(0.39)
    assert not driver.finals(1)
    driver.wait(0.02)
    assert [f.text for f in driver.finals(1)] == ["hello world"]
    calls = driver.calls
    driver.wait(60)
    assert driver.calls == calls and len(driver.finals(1)) == 1


def test_a_file_is_not_finalised_because_it_is_read_slowly(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=1120, priority="batch")
    driver.open(1)
    driver.push(1, say("hello world"))
    driver.wait(5)
    assert not driver.finals(1)


def test_a_monologue_is_cut_at_a_word(toy: Model) -> None:
    samples = np.concatenate([utterance(seed, 12) for seed in range(8)])
    driver = Driver(toy, chunk_ms=160, priority="batch")
    driver.open(1)
    driver.push(1, samples)
    driver.close(1)
    reasons = [f.reason for f in driver.finals(1)]
    assert reasons[:-1] and set(reasons[:-1]) == {"limit"}
    assert all(f.end_sample - f.start_sample <= 16 * 16_000 for f in driver.finals(1))
    pieces = "".join(toy.vocabulary.surface(t) for t in driver.tokens[1])
    assert driver.text(1).replace(" ", "").startswith(pieces)


def test_stable_text_is_announced_once(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    driver.open(1)
    driver.push(1, np.concatenate([say("hello world"), silence(1)]))
    texts = [e.text for e in driver.of(1, Preflight)]
    assert texts[-1] == "hello world" and len(texts) == len(set(texts))


def test_a_long_chunk_shows_text_before_it_is_full(toy: Model) -> None:
    samples = np.concatenate([say("hello"), silence(0.3)])[:16_000]
    assert len(samples) < 1120 * 16
    plain, peeking = Driver(toy, chunk_ms=1120), Driver(toy, chunk_ms=1120, peek=True)
    for driver in (plain, peeking):
        driver.open(1)
        for start in range(0, len(samples), 800):
            driver.push(1, samples[start : start + 800])
    assert not plain.of(1, Interim)
    assert "hello" in [e.text for e in peeking.of(1, Interim)]
    for driver in (plain, peeking):
        driver.push(1, utterance(3))
        driver.close(1)
    assert plain.text(1) == peeking.text(1)


def test_a_flush_costs_the_steps_it_must(toy: Model) -> None:
    """ceil((pending + P) / chunk) encoder calls, none waiting for audio."""
    for chunk_ms in (80, 160, 560, 1120):
        driver = Driver(toy, chunk_ms=chunk_ms)
        driver.open(1)
        driver.push(1, say("hello world")[:12_345])
        pending = 12_345 - driver.chunks[1] * chunk_ms * 16
        calls, now = driver.calls, driver.now
        driver.flush(1, 1)
        assert driver.finals(1)[-1].flush_id == 1 and driver.now == now
        assert driver.calls - calls == -(-(pending + toy.flush_samples) // (chunk_ms * 16))


def test_blocks_larger_than_the_idle_time_are_not_finalised_one_by_one(toy: Model) -> None:
    """A live source may send a second at a time: its text is that of the same samples in any other blocks."""
    samples = np.concatenate([utterance(seed, 12) for seed in range(2)])
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    for start in range(0, len(samples), 16_000):
        driver.push(1, samples[start : start + 16_000])
        driver.wait(1.0)
    driver.close(1)
    assert driver.text(1) == offline(toy, samples, chunk_ms=160)


def test_an_empty_final_behind_a_gap_says_the_time(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    driver.push(1, silence(0.77))
    driver.gap(1, 160_000)
    driver.flush(1, 1)
    assert driver.finals(1)[-1].end_sample == len(silence(0.77)) + 160_000


def test_gaps_without_audio_between_cost_nothing(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    for _ in range(50):
        driver.gap(1, 16_000)
    assert driver.calls == 0
    driver.push(1, np.concatenate([say("hello world"), silence(0.5)]))
    driver.close(1)
    assert driver.finals(1)[-1].start_sample > 50 * 16_000


def test_words_never_overlap_nor_go_back(toy: Model) -> None:
    for seed in range(10):
        samples = utterance(seed, 8)
        driver = Driver(toy, chunk_ms=80)
        driver.open(1)
        for flush_id, part in enumerate(np.array_split(samples, 5)):
            driver.push(1, part)
            driver.flush(1, flush_id)
        words = [w for f in driver.finals(1) for w in f.words]
        for before, after in zip(words, words[1:], strict=False):
            assert before.start_sample <= before.end_sample <= after.start_sample


@pytest.mark.parametrize("quiet", ["never pushed", "silent", "muted and unmuted"])
def test_nobody_waits_for_a_stream_that_sends_nothing(toy: Model, quiet: str) -> None:
    """Five live streams; the fifth stops sending. The others' chunks run as soon as they are complete."""
    driver = Driver(toy, chunk_ms=1120)
    for i in range(5):
        driver.open(i)
    if quiet != "never pushed":
        driver.push(4, silence(0.1))
    if quiet == "muted and unmuted":
        driver.mute(4)
        driver.unmute(4)
    driver.wait(0.5)
    calls = driver.calls
    for i in range(4):
        driver.push(i, silence(1.12), run=False)
    driver.run()
    assert driver.calls == calls + 1


def test_audio_behind_a_flush_waits_for_its_answer(toy: Model) -> None:
    """Whether the engine got to the flush before more audio came makes no difference."""
    samples = utterance(13, 8)
    cut = len(samples) // 2 + 777
    prompt, late = Driver(toy, chunk_ms=560), Driver(toy, chunk_ms=560)
    for driver, run in ((prompt, True), (late, False)):
        driver.open(1)
        driver.push(1, samples[:cut])
        driver.flush(1, 1, run=run)
        for start in range(cut, len(samples), 4000):
            driver.push(1, samples[start : start + 4000], run=run)
        driver.close(1)
    assert [(f.text, f.words, f.flush_id) for f in late.finals(1)] == [
        (f.text, f.words, f.flush_id) for f in prompt.finals(1)
    ]
    assert [f.flush_id for f in late.finals(1)][0] == 1

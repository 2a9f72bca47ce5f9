"""Streams open and close, fail and are refused; rows never leak and nobody harms a neighbour."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from nemostream.encoders import EncoderRows, Floats, Indices, Places
from nemostream.errors import StepFailed
from nemostream.lanes import ROOM
from nemostream.model import Model
from nemostream.protocol import (
    Close,
    Ended,
    Endpointing,
    Failed,
    Final,
    Gap,
    Message,
    Open,
    Push,
    Refused,
    Started,
    Update,
    Usage,
)
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver, noise


def test_ten_thousand_streams_leave_nothing_behind(toy: Model) -> None:
    """Up to 16 at once, random audio, closed with and without drain at any moment; memory is flat afterwards."""
    driver = Driver(toy, chunk_ms=80, max_streams=16)
    rng = np.random.default_rng(0)
    pool = noise(rng, 48_000, 0.3)
    opened = 0
    generations: set[int] = set()
    alive: list[int] = []

    def cycle(count: int) -> None:
        nonlocal opened
        target = opened + count
        while opened < target or alive:
            if opened < target and len(alive) < 16 and rng.random() < 0.6:
                driver.open(opened)
                alive.append(opened)
                opened += 1
            elif alive:
                stream = alive[int(rng.integers(len(alive)))]
                if rng.random() < 0.4:
                    start = int(rng.integers(0, 40_000))
                    driver.push(stream, pool[start : start + int(rng.integers(0, 3000))], run=bool(rng.random() < 0.5))
                else:
                    driver.close(stream, drain=bool(rng.random() < 0.2))
                    alive.remove(stream)
            for stream in [s for s, e in driver.events.items() if e and isinstance(e[-1], Ended)]:
                events = driver.events.pop(stream)
                assert {e.stream for e in events} == {stream}
                (generation,) = {e.generation for e in events}
                assert generation not in generations
                generations.add(generation)
                driver.tokens.pop(stream, None)
        assert len(driver.core) == 0

    cycle(1_000)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    cycle(9_000)
    generations_size = 9_000 * 64  # the test's own set of numbers
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before - generations_size
    tracemalloc.stop()
    assert opened == 10_000 and len(generations) == 10_000
    assert all(len(g.rows) == 0 and not g.load.slots and not g._saved for g in driver.core.groups.values())
    # 450 bytes a stream; Python's own tables may double once on the way (2 MB).
    assert grown < 4_000_000


def test_a_full_engine_refuses_and_takes_again(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80, max_streams=2)
    driver.open(1)
    driver.open(2, chunk_ms=1120)
    driver.open(3)
    refused = driver.refused(3)
    assert refused.code == "EngineFull" and refused.retry_after
    driver.close(1)
    driver.open(4)
    assert driver.of(4, Started)


@pytest.mark.parametrize(
    ("opened", "code", "says"),
    [
        ({"chunk_ms": 90}, "UnsupportedChunk", "80, 160, 560, 1120"),
        ({"model": "nobody"}, "UnknownModel", "nobody"),
        ({"decoder": "beam"}, "BundleError", "beam"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_sentence(
    toy: Model, opened: dict[str, object], code: str, says: str
) -> None:
    driver = Driver(toy)
    driver.open(1, **opened)
    refused = driver.refused(1)
    assert refused.code == code and says in refused.message and "\n" not in refused.message


def test_an_open_number_cannot_be_opened_twice(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    driver.open(1)
    driver.core.handle("driver", Open(1))
    driver.run()
    assert driver.of(1, Refused) and not driver.of(1, Failed)
    driver.push(1, utterance(2))
    driver.close(1)
    assert driver.text(1) == offline(toy, utterance(2), chunk_ms=80)


@pytest.mark.parametrize(
    "bad",
    [
        np.array([0.1, np.nan], np.float32),
        np.array([np.inf], np.float32),
        np.zeros(10, np.float64),
        np.zeros((10, 2), np.float32),
    ],
)
def test_bad_audio_ends_its_stream_and_no_other(toy: Model, bad: np.ndarray) -> None:
    samples = utterance(3)
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    driver.open(2)
    driver.push(1, samples[:20_000])
    driver.push(2, samples[:20_000])
    driver.push(1, bad)
    (failed,) = driver.of(1, Failed)
    assert failed.code == "AudioError" and not failed.retryable
    driver.push(2, samples[20_000:])
    driver.close(2)
    assert driver.text(2) == offline(toy, samples, chunk_ms=160)


def test_empty_audio_is_nothing(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    driver.open(1)
    driver.push(1, np.zeros(0, np.float32))
    driver.flush(1, 5)
    driver.close(1)
    (final,) = driver.finals(1)
    assert final.text == "" and final.flush_id == 5 and isinstance(driver.events[1][-1], Ended)


def test_a_closed_stream_answers_a_flush_with_a_failure(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    driver.open(1)
    driver.close(1)
    driver.push(1, utterance(1))
    driver.flush(1, 9)
    (failed,) = driver.of(1, Failed)
    assert failed.code == "StreamClosed"


def test_a_live_stream_that_floods_is_closed_and_says_so(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    driver.open(1)
    for _ in range(40):
        driver.push(1, np.zeros(16_000, np.float32), run=False)
    driver.run()
    (failed,) = driver.of(1, Failed)
    assert failed.code == "Overrun" and failed.retryable and len(driver.core) == 0


def test_usage_adds_up_to_what_was_pushed(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=560)
    driver.open(1)
    for _ in range(17):
        driver.push(1, np.zeros(16_001, np.float32))
    driver.close(1)
    usages = driver.of(1, Usage)
    assert sum(u.samples for u in usages) == 17 * 16_001 and len(usages) >= 3


class _Faulty:
    """A real encoder that fails whenever the poisoned stream's chunk is in the batch."""

    def __init__(self, rows: EncoderRows, times: int | None = None) -> None:
        self._rows, self._times = rows, times
        self.failures = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._rows, name)

    def step(self, rows: int | Indices, mel: Floats, prompts: Places) -> Floats:
        poisoned = bool((mel.max(axis=(1, 2)) > 8).any())
        if poisoned and (self._times is None or self.failures < self._times):
            self.failures += 1
            raise StepFailed("injected")
        return self._rows.step(rows, mel, prompts)


@pytest.mark.parametrize("times", [1, None])
def test_a_failing_step_is_retried_then_the_bad_row_stands_alone(toy: Model, times: int | None) -> None:
    """Full-scale noise stands for the bad row: a passing fault harms nobody, a lasting one its own stream only."""
    samples = utterance(4)
    driver = Driver(toy, chunk_ms=160)
    for i in range(6):
        driver.open(i)
    group = next(iter(driver.core.groups.values()))
    faulty = _Faulty(group._encoder, times)
    group._encoder = faulty  # type: ignore[assignment]
    loud = np.random.default_rng(0).uniform(-300, 300, len(samples)).astype(np.float32)
    for start in range(0, len(samples), 3200):
        for i in range(6):
            driver.push(i, (loud if i == 3 else samples)[start : start + 3200], run=False)
        driver.run()
    for i in range(6):
        driver.close(i)
    assert faulty.failures
    assert bool(driver.of(3, Failed)) == (times is None)
    for i in (0, 1, 2, 4, 5):
        assert driver.text(i) == offline(toy, samples, chunk_ms=160)
        assert not driver.of(i, Failed)


def test_an_owner_that_vanishes_frees_its_rows(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    for i in range(5):
        driver.open(i)
        driver.push(i, utterance(i)[: 3000 * i + 1])
    driver.core.drop("driver")
    assert len(driver.core) == 0 and driver.run() == 0
    assert not any(isinstance(e, Final) for i in range(5) for e in driver.events[i] if not getattr(e, "text", "x"))


class _Strange:
    """What no client of ours sends."""

    shape, dtype = (1,), "strange"

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "message",
    [Gap(1, -5), Push(1, [0.0], 0), Push(1, _Strange(), 0), Push(1, np.zeros(9, np.float32), 0.5), Update(1, 7)],  # type: ignore[arg-type]
)
def test_a_malformed_message_ends_its_stream_and_no_other(toy: Model, message: Message) -> None:
    samples = utterance(3)
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    driver.open(2)
    driver.send(message)
    assert driver.of(1, Failed) and len(driver.core) == 1
    driver.push(2, samples)
    driver.close(2)
    assert driver.text(2) == offline(toy, samples, chunk_ms=160)


def test_a_malformed_open_takes_no_row(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=1120, peek=True)
    driver.open(1, endpointing="none")
    assert driver.refused(1) and len(driver.core) == 0
    driver.open(2)
    driver.push(2, utterance(3))
    driver.close(2)
    assert driver.text(2) == offline(toy, utterance(3), chunk_ms=1120)


def test_time_without_audio_is_no_usage(toy: Model) -> None:
    """A Usage is due after five seconds of audio, however long the gaps between them."""
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    for seconds in (3.0, 1.9, 0.2):
        assert not driver.of(1, Usage)
        driver.push(1, np.zeros(int(seconds * 16_000), np.float32))
        driver.gap(1, 10 * 16_000)
    assert [u.samples for u in driver.of(1, Usage)] == [int(5.1 * 16_000)]


def test_a_push_costs_no_more_than_its_next_chunk_before_a_step(toy: Model) -> None:
    """Ten minutes at once: the window takes what it has room for, and mel frames are made as steps take them."""
    driver = Driver(toy, chunk_ms=160, priority="batch")
    driver.open(1)
    driver.push(1, np.zeros(600 * 16_000, np.float32), run=False)
    (seat,) = driver.core._seats
    assert seat.stream.feed.heard < ROOM + 2 * 160 * 16
    assert seat.stream.backlog == 600 * 16_000


def test_a_draining_close_can_become_an_immediate_one(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80, priority="batch")
    driver.open(1)
    driver.push(1, np.zeros(60 * 16_000, np.float32), run=False)
    driver.send(Close(1, drain=True), run=False)
    driver.send(Close(1, drain=False), run=False)
    assert isinstance(driver.events[1][-1], Ended) and len(driver.core) == 0


def test_a_language_that_the_model_does_not_speak_is_refused(toy: Model) -> None:
    driver = Driver(toy, chunk_ms=80)
    driver.open(1, language="de")
    assert driver.refused(1).code == "UnsupportedLanguage"
    driver.open(2, language="en-US")
    assert driver.of(2, Started)[0].language == "en-US"


@pytest.mark.parametrize("vad_ms", [None, 300])
def test_int16_is_heard_as_the_floats_that_it_stands_for(toy: Model, vad_ms: int | None) -> None:
    """To the bit: in blocks that fit the next chunk, and in one that has to wait."""
    pcm = (utterance(3) * 32767).astype(np.int16)
    texts = []
    for samples in (pcm, pcm / np.float32(32768)):
        for cuts in ([], range(1000, len(pcm), 1000)):
            driver = Driver(toy, chunk_ms=160)
            driver.open(1, endpointing=Endpointing(blank_ms=None, vad_ms=vad_ms))
            for part in np.split(samples, cuts):
                driver.push(1, part)
            driver.flush(1, 7)
            snapshot = driver.core.snapshot(("driver", 1))
            texts.append((driver.text(1), snapshot.feed.window.tobytes(), snapshot.row.encoder_row["k0"].tobytes()))
    assert texts[0][0] and set(texts) == {texts[0]}

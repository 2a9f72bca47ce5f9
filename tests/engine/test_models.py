"""Several models in one engine: whose step comes first, how long it may take, and which models stay in memory."""

from __future__ import annotations

import queue
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nemostream.engine import Connection, Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import EngineFull, ModelMemory
from nemostream.memory import model_bytes
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import NO_ENDPOINT, Close, Ended, Event, Final, Open, Push, Refused, Started
from nemostream.work import Batch
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver, load


@pytest.fixture(scope="module")
def random(random_bundle: Bundle) -> Model:
    return load(random_bundle.path, "fp32")


def test_two_models_take_turns_by_their_deadlines_and_say_what_they_say_alone(toy: Model, random: Model) -> None:
    samples = utterance(3)
    driver = Driver(toy)
    driver.core.add_model("random", random)
    driver.open(1, chunk_ms=160)
    driver.open(2, chunk_ms=80, model="random")
    (first,) = [g for g in driver.core.groups.values() if g.model is toy]
    (second,) = [g for g in driver.core.groups.values() if g.model is random]
    driver.push(1, samples[:2000], run=False)  # its next chunk is due at 0.16
    driver.now = 0.05
    driver.push(2, samples[:800], run=False)  # due at 0.13
    driver.run(most=1)
    assert (first.counters.steps, second.counters.steps) == (0, 1)
    driver.run(most=1)
    assert (first.counters.steps, second.counters.steps) == (1, 1)
    driver.push(1, samples[2000:], run=False)
    driver.push(2, samples[800:], run=False)
    driver.close(1)
    driver.close(2)
    assert driver.text(1) == offline(toy, samples, chunk_ms=160)
    assert driver.text(2) == offline(random, samples, chunk_ms=80)


def test_no_step_takes_more_than_half_of_the_shortest_open_chunk(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 streams of 1120 ms whose full batch takes 130 ms, beside one of 80 ms, until that one leaves."""
    driver = Driver(toy, chunk_ms=1120, max_streams=16)
    took: list[float] = []
    for i in range(12):
        driver.open(i)
    (group,) = driver.core.groups.values()
    run = group.run

    def slow(batch: Batch, dense: int | None, meanwhile: Any = None) -> Any:
        took.append(0.01 + 0.01 * (dense or len(batch)))
        driver.now += took[-1]
        return run(batch, dense)

    monkeypatch.setattr(group, "run", slow)

    def push(seconds: float) -> None:
        for _ in range(round(seconds / 0.08)):
            for i in range(12):
                driver.push(i, np.zeros(1280, np.float32), run=False)
            driver.wait(0.08)

    push(2.4)
    alone = max(took)
    driver.open(99, chunk_ms=80)
    push(1.2)
    del took[:]
    push(3.6)
    assert took and max(took) <= 0.04 < alone
    driver.close(99)
    del took[:]
    push(2.4)
    assert max(took) == pytest.approx(alone)


def core_of(*models: tuple[str | None, Model, int]) -> Driver:
    driver = Driver(models[0][1])
    driver.core = type(driver.core)(max_streams=8, peek=False, clock=lambda: driver.now)
    for name, model, size in models:
        driver.core.add_model(name, model, size)
    return driver


def copy_of(model: Model) -> Model:
    """Another model in memory, on the same graph."""
    return Model(model.bundle, model.backend, model.precision)


def test_models_without_streams_make_room_the_longest_unused_first_and_the_default_last(toy: Model) -> None:
    driver = core_of(*((name, copy_of(toy), 10) for name in (None, "a", "b", "c")))
    for i, name in enumerate(("b", "a", "c")):
        driver.open(i, model=name, chunk_ms=80)
    driver.close(0)
    driver.close(1)
    driver.core.make_room(10, 50)
    assert set(driver.core.models) == {None, "a", "b", "c"}, "it fits"
    driver.core.make_room(10, 40)
    assert set(driver.core.models) == {None, "a", "c"}
    driver.core.make_room(20, 40, awaited={"a"})
    assert set(driver.core.models) == {"a", "c"}, "somebody waits for a"
    driver.core.add_model(None, copy_of(toy), 10)
    with pytest.raises(EngineFull, match="1 models in use") as full:
        driver.core.make_room(31, 40)
    assert full.value.retry_after and set(driver.core.models) == {None, "a", "c"}, "nothing is evicted in vain"
    with pytest.raises(ModelMemory, match="model_memory_mb"):
        driver.core.make_room(41, 40)
    driver.core.make_room(30, 40)
    assert set(driver.core.models) == {"c"}


def test_streams_that_wait_for_a_row_hold_their_model(toy: Model) -> None:
    driver = core_of((None, copy_of(toy), 10), ("a", copy_of(toy), 10))
    for i in range(9):
        driver.open(i, model=None if i else "a", chunk_ms=80, priority="batch")
    driver.close(0)
    driver.open(20, chunk_ms=80)  # parks the newest
    driver.open(21, model="a", chunk_ms=80, priority="batch")
    assert not driver.of(21, Started)
    with pytest.raises(EngineFull):
        driver.core.make_room(10, 20)


def test_an_evicted_model_gives_its_arrays_back_at_once(toy: Model) -> None:
    driver = core_of((None, toy, 10), ("a", copy_of(toy), 10))
    for chunk_ms in (80, 160):
        driver.open(1, model="a", chunk_ms=chunk_ms)
        driver.push(1, utterance(1))
        driver.close(1)
    model = driver.core.models["a"]
    groups = [g for g in driver.core.groups.values() if g.model is model]
    arrays = [weakref.ref(g._encoder) for g in groups] + [weakref.ref(g) for g in groups]  # type: ignore[list-item]
    gone = weakref.ref(model)
    del model, groups
    driver.core.make_room(10, 20)
    assert [ref() for ref in arrays] == [None] * 4 and gone() is None


class Owner:
    """A connection whose events a test can wait for."""

    def __init__(self, engine: Engine) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.connection: Connection = engine.connect(lambda events: [self.events.put(e) for e in events] and None)

    def until(self, *kinds: type[Event]) -> list[Event]:
        seen: list[Event] = []
        while not seen or not isinstance(seen[-1], kinds):
            seen.append(self.events.get(timeout=60))
        return seen

    def text(self, stream: int, model: str | None, samples: np.ndarray) -> str:
        opened = Open(stream, model=model, chunk_ms=160, endpointing=NO_ENDPOINT)
        self.connection.send(opened, Push(stream, samples, 0), Close(stream))
        return " ".join(e.text for e in self.until(Ended, Refused) if isinstance(e, Final))


@pytest.fixture
def small(toy_bundle: Bundle, random_bundle: Bundle) -> Iterator[Engine]:
    """An engine with memory for one of two models."""
    sizes = [model_bytes(b.path, "fp32") for b in (toy_bundle, random_bundle)]
    limit = -(-max(sizes) // (1 << 20))
    assert sum(sizes) > limit << 20
    engine = Engine(EngineConfig(str(toy_bundle.path), "fp32", threads=1, max_streams=4, model_memory_mb=limit))
    yield engine
    engine.close()


def test_a_model_that_was_evicted_comes_back_and_says_the_same(
    small: Engine, toy: Model, random: Model, random_bundle: Bundle
) -> None:
    samples, other = utterance(1), str(random_bundle.path)
    owner = Owner(small)
    wanted = offline(toy, samples, chunk_ms=160), offline(random, samples, chunk_ms=160)
    for turn in range(2):
        assert owner.text(turn, None, samples) == wanted[0]
        assert list(small._core.models) == [None]
        assert owner.text(10 + turn, other, samples) == wanted[1]
        assert list(small._core.models) == [other]


def test_a_model_for_which_others_leave_no_memory_is_refused(small: Engine, random_bundle: Bundle) -> None:
    owner = Owner(small)
    owner.connection.send(Open(1))
    owner.until(Started)
    owner.connection.send(Open(2, model=str(random_bundle.path)))
    (refused,) = owner.until(Refused)
    assert isinstance(refused, Refused) and refused.code == "EngineFull" and refused.retry_after
    with pytest.raises(EngineFull):
        small.load(str(random_bundle.path))
    owner.connection.send(Close(1))
    owner.until(Ended)
    small.load(str(random_bundle.path))


def test_a_model_too_large_for_the_limit_is_refused_for_good(toy_bundle: Bundle) -> None:
    engine = Engine(EngineConfig(str(toy_bundle.path), "fp32", threads=1, model_memory_mb=1))
    with pytest.raises(ModelMemory):
        engine.load()
    owner = Owner(engine)
    owner.connection.send(Open(1))
    (refused,) = owner.until(Refused)
    assert isinstance(refused, Refused) and refused.code == "ModelMemory" and refused.retry_after is None
    engine.close()

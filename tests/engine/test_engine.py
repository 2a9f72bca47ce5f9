"""The engine's thread: order, loading, owners that come, fail and vanish."""

from __future__ import annotations

import importlib.metadata
import os
import queue
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from nemostream import blas, registry
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import BundleError, StreamClosed, UnknownModel
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import (
    NO_ENDPOINT,
    Close,
    Ended,
    Event,
    Failed,
    Final,
    Flush,
    Open,
    Push,
    Refused,
    Started,
    Update,
)
from nemostream.registry import AnyEngine
from tests.engine.conftest import offline, utterance
from tests.serving import ServedEngine


class Owner:
    """A connection whose events a test can wait for."""

    def __init__(self, engine: AnyEngine) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.connection = engine.connect(self.take)

    def take(self, events: Sequence[Event]) -> None:
        for event in events:
            self.events.put(event)

    def until(self, *kinds: type[Event]) -> list[Event]:
        """The events up to the first of one of these kinds."""
        seen: list[Event] = []
        while not seen or not isinstance(seen[-1], kinds):
            seen.append(self.events.get(timeout=30))
        return seen


@pytest.fixture(params=["in process", "over the socket"])
def engine(toy_bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[Engine | ServedEngine]:
    local = Engine(EngineConfig(model=str(toy_bundle.path), precision="fp32", threads=1, max_streams=4))
    engine = local if request.param == "in process" else ServedEngine(local)
    yield engine
    engine.close()


def whole(number: int, samples: np.ndarray) -> list[Open | Push | Close]:
    return [Open(number, chunk_ms=160, endpointing=NO_ENDPOINT), Push(number, samples, 0), Close(number)]


def test_what_is_sent_while_the_model_loads_waits_in_order(engine: AnyEngine, toy: Model) -> None:
    owner = Owner(engine)
    owner.connection.send(*whole(1, utterance(1)))
    events = owner.until(Ended)
    assert isinstance(events[0], Started)
    assert " ".join(e.text for e in events if isinstance(e, Final)) == offline(toy, utterance(1), chunk_ms=160)


def test_two_owners_may_use_the_same_numbers(engine: AnyEngine, toy: Model) -> None:
    owners = [Owner(engine), Owner(engine)]
    for i, owner in enumerate(owners):
        owner.connection.send(*whole(1, utterance(i)))
    for i, owner in enumerate(owners):
        texts = [e.text for e in owner.until(Ended) if isinstance(e, Final)]
        assert " ".join(texts) == offline(toy, utterance(i), chunk_ms=160)


def test_a_model_that_cannot_load_refuses_all_who_waited(engine: AnyEngine, tmp_path: Path) -> None:
    owner = Owner(engine)
    broken = str(tmp_path)
    owner.connection.send(Open(1, model=broken), Flush(1, 1), Open(2, model=broken))
    refused = [owner.until(Refused)[-1], owner.until(Refused)[-1]]
    assert [r.stream for r in refused] == [1, 2]
    assert all(isinstance(r, Refused) and r.code == "BundleError" for r in refused)
    owner.connection.send(Open(3))
    owner.until(Started)


def test_loading_on_the_callers_thread_raises(engine: AnyEngine, toy_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="nobody"):
        engine.load("nobody")
    cut = tmp_path / "cut"
    shutil.copytree(toy_bundle.path, cut)
    (cut / "weights.npz").write_bytes(b"")
    with pytest.raises(BundleError, match="weights.npz"):
        engine.load(str(cut))


def test_an_engine_says_what_it_is_and_what_its_steps_were_like(engine: AnyEngine, toy: Model) -> None:
    engine.load()
    before = engine.describe()
    owner = Owner(engine)
    owner.connection.send(*whole(1, utterance(1)))
    owner.until(Ended)
    after = engine.describe()
    assert after.pid == os.getpid() and after.device == "cpu" and after.processor
    assert 1 << 20 < after.memory_bytes < after.memory_total_bytes
    model = after.model(None)
    assert model is not None and model.name == toy.bundle.info.name and model.precision == "fp32"
    assert model.backend == f"onnxruntime {importlib.metadata.version('onnxruntime')}"
    assert after.model("another") is None
    steps = after.stats["encoder_calls"]
    assert before.figures.step_seconds.count == 0 < steps
    assert after.figures.step_seconds.count == after.figures.batch_size.count == steps
    assert after.figures.batch_size.total == pytest.approx(after.stats["mean_batch"] * steps)
    assert 0 < after.figures.queue_delay_seconds.count <= steps and after.figures.step_seconds.total > 0


def test_an_owner_whose_deliver_raises_harms_nobody(engine: AnyEngine, toy: Model) -> None:
    def broken(events: Sequence[Event]) -> None:
        raise RuntimeError("injected")

    engine.load()
    engine.connect(broken).send(*whole(1, utterance(1)))
    owner = Owner(engine)
    owner.connection.send(*whole(1, utterance(2)))
    assert [e for e in owner.until(Ended) if isinstance(e, Final)]


def test_a_closed_connection_frees_its_rows(engine: Engine | ServedEngine) -> None:
    engine.load()
    owner = Owner(engine)
    owner.connection.send(*(Open(i) for i in range(4)))
    for _ in range(4):
        owner.until(Started)
    other = Owner(engine)
    other.connection.send(Open(1))
    assert isinstance(other.until(Refused, Started)[-1], Refused)
    owner.connection.close()
    other.connection.send(Open(1))
    assert isinstance(other.until(Refused, Started)[-1], Started)
    assert engine.open_streams == 1


def test_a_defect_in_a_step_ends_streams_but_not_the_engine(engine: AnyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.load()
    owner = Owner(engine)
    from nemostream.core import Core

    with monkeypatch.context() as patch:
        patch.setattr(Core, "step", lambda self, meanwhile: 1 / 0)
        owner.connection.send(Open(1), Push(1, utterance(1), 0))
        failed = owner.until(Failed)[-1]
    assert isinstance(failed, Failed) and failed.retryable
    owner.connection.send(*whole(2, utterance(2)))
    assert any(isinstance(e, Final) for e in owner.until(Ended))


def test_equal_configs_share_an_engine_until_nobody_uses_it(toy_bundle: Bundle) -> None:
    config = EngineConfig(model=str(toy_bundle.path), max_streams=3)
    first, second = registry.acquire(config), registry.acquire(EngineConfig(str(toy_bundle.path), max_streams=3))
    assert first is second
    registry.release(first, linger=0)
    owner = Owner(second)
    owner.connection.send(Open(1))
    owner.until(Started)
    registry.release(second, linger=0)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(timeout=10)
    third = registry.acquire(config)
    assert third is not first
    registry.release(third, linger=0)


def test_a_closed_engine_answers_everybody(toy_bundle: Bundle) -> None:
    """Streams that are open, that wait for a model, and owners that come too late."""
    engine = Engine(EngineConfig(model=str(toy_bundle.path), threads=1))
    engine.load()
    owner = Owner(engine)
    owner.connection.send(Open(1))
    owner.until(Started)
    owner.connection.send(Open(2, model="./not loaded yet"))
    engine.close()
    told = {type(e).__name__ for e in (owner.events.get(timeout=10), owner.events.get(timeout=10))}
    assert told == {"Failed", "Refused"}
    with pytest.raises(StreamClosed):
        engine.connect(owner.take)
    owner.connection.send(*(Push(1, utterance(1), 0) for _ in range(100)))
    assert not engine._mail


def test_the_registry_replaces_an_engine_that_was_closed(toy_bundle: Bundle) -> None:
    config = EngineConfig(model=str(toy_bundle.path), max_streams=2)
    first = registry.acquire(config)
    first.close()
    second = registry.acquire(config)
    assert second is not first and not second.closed
    registry.release(second, linger=0)


def test_blas_is_given_back_whichever_thread_leaves_first() -> None:
    """Two engines' threads, in any order; and a thread that is not the first to ask is heard too."""

    def threads() -> set[int]:
        return {i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"}

    before = threads()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with blas.one_thread():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with blas.one_thread():
        thread.start()
        assert entered.wait(10)
    assert threads() == {1}
    leave.set()
    thread.join(10)
    assert threads() == before
    seen: list[set[int]] = []

    def alone() -> None:
        with blas.one_thread():
            seen.append(threads())

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join(10)
    assert seen == [{1}] and threads() == before


class _Code(str):
    """As LiveKit's LanguageCode is."""


def test_a_language_may_be_a_kind_of_str(engine: AnyEngine) -> None:
    owner = Owner(engine)
    owner.connection.send(Open(1, language=_Code("en-US")))
    started = owner.until(Started, Refused)[-1]
    assert isinstance(started, Started) and started.language == "en-US"


@pytest.mark.parametrize("bad", [Push(1, [0.0], 0), Update(1, object())])  # type: ignore[arg-type]
def test_what_cannot_be_sent_ends_its_stream_and_no_other(engine: AnyEngine, toy: Model, bad: Push | Update) -> None:
    owner = Owner(engine)
    owner.connection.send(Open(1, chunk_ms=160), *whole(2, utterance(1))[:2])
    owner.connection.send(bad)
    owner.connection.send(Close(2))
    events = owner.until(Ended)
    while len([e for e in events if isinstance(e, (Ended, Failed))]) < 2:
        events += owner.until(Ended, Failed)
    assert [e.stream for e in events if isinstance(e, Failed)] == [1]
    texts = [e.text for e in events if isinstance(e, Final) and e.stream == 2]
    assert " ".join(texts) == offline(toy, utterance(1), chunk_ms=160)

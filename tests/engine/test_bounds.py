"""What one client can make the engine hold, or do, has a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from nemostream.core import Core
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import UnknownModel
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Event, Failed, Open, Push, Refused
from nemostream.stream import MAX_REQUESTS
from tests.engine.conftest import utterance
from tests.engine.driver import Driver
from tests.remote.raw import eventually


def test_unanswered_flushes_are_bounded(toy: Model) -> None:
    """Each costs steps: a hundred thousand of them end their stream, typed."""
    driver = Driver(toy, chunk_ms=160)
    driver.open(1)
    driver.push(1, utterance(1), run=False)
    for i in range(MAX_REQUESTS):
        driver.flush(1, i, run=False)
    assert not driver.of(1, Failed)
    driver.flush(1, MAX_REQUESTS, run=False)
    (failed,) = driver.of(1, Failed)
    assert failed.code == "Overrun" and len(driver.core) == 0


@pytest.fixture
def loading(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, threading.Event]:
    """An engine whose model loads until the event is set."""
    go_on = threading.Event()
    engine = Engine(EngineConfig(str(toy_bundle.path), threads=1))
    monkeypatch.setattr(engine, "load", lambda model: go_on.wait(20))
    return engine, go_on


def test_audio_that_waits_for_a_model_is_bounded(loading: tuple[Engine, threading.Event]) -> None:
    engine, go_on = loading
    seen: list[Event] = []
    connection = engine.connect(seen.extend)
    connection.send(Open(1), Open(2), *(Push(1, np.zeros(160_000, np.float32), i * 160_000) for i in range(100)))
    eventually(lambda: bool(seen))
    assert [(type(e), e.stream) for e in seen] == [(Refused, 1)]
    assert [m.stream for _, m in engine._lobby.letters] == [2]
    go_on.set()
    engine.close()


def test_a_hang_while_messages_are_taken_is_seen(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages run steps too, where a live stream takes the row of one that is in the middle of an answer."""
    go_on = threading.Event()
    hang: Callable[..., object] = lambda self, owner, message: go_on.wait(20)  # noqa: E731
    monkeypatch.setattr(Core, "handle", hang)
    engine = Engine(EngineConfig(str(toy_bundle.path), threads=1))
    engine.load()
    engine.connect(print).send(Open(1))
    eventually(lambda: engine.busy_since is not None)
    go_on.set()
    engine.close()


def test_names_that_mean_nothing_leave_nothing(toy_bundle: Bundle) -> None:
    engine = Engine(EngineConfig(str(toy_bundle.path), threads=1))
    for i in range(50):
        with pytest.raises(UnknownModel):
            engine.load(f"nobody-{i}")
    assert not engine._locks

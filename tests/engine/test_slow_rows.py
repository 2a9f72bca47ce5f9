"""Rows on a device take seconds to make (memory, captures, plans): who needs them waits, and nobody else."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Iterator

import pytest
import torch

from nemostream.device.group import DeviceGroup
from nemostream.engine import Connection, Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import EngineFull
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Close, Ended, Event, Final, Open, Push, Refused, Started
from tests.engine.conftest import offline, utterance

LONG = 14


class Owner:
    """Streams of one connection, and their events."""

    def __init__(self, engine: Engine) -> None:
        self.seen: list[Event] = []
        self._events: queue.Queue[Event] = queue.Queue()
        self.connection: Connection = engine.connect(lambda found: [self._events.put(e) for e in found] and None)

    def until(self, stream: int, kind: type[Event]) -> Event:
        while True:
            for event in self.seen:
                if event.stream == stream and isinstance(event, kind):
                    return event
            self.seen.append(self._events.get(timeout=60))

    def text(self, stream: int) -> str:
        return " ".join(e.text for e in self.seen if isinstance(e, Final) and e.stream == stream and e.text)


@pytest.fixture
def engine(toy_bundle: Bundle) -> Iterator[Engine]:
    torch.set_num_threads(1)
    engine = Engine(
        EngineConfig(model=str(toy_bundle.path), precision="fp32", threads=1, encoder="torch", max_streams=4)
    )
    yield engine
    engine.close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event, list[int]]]:
    """Chunks of 1120 ms: that their rows are begun, that they may go on, and each time they were made."""
    begun, go_on, made = threading.Event(), threading.Event(), list[int]()
    plain = DeviceGroup._make_room

    def make_room(group: DeviceGroup) -> bool:
        if group.chunk_frames == LONG:
            begun.set()
            assert go_on.wait(60)
            made.append(LONG)
        return plain(group)

    monkeypatch.setattr(DeviceGroup, "_make_room", make_room)
    yield begun, go_on, made
    go_on.set()


def test_others_are_served_meanwhile(
    engine: Engine, toy: Model, slow: tuple[threading.Event, threading.Event, list[int]]
) -> None:
    begun, go_on, made = slow
    owner, audio = Owner(engine), [utterance(5, 6), utterance(6, 6), utterance(7, 6)]
    owner.connection.send(Open(0, chunk_ms=160), Push(0, audio[0][:8000], 0))
    owner.until(0, Started)
    for stream in (1, 2):  # two that wait for the same
        owner.connection.send(Open(stream, chunk_ms=1120), Push(stream, audio[stream], 0), Close(stream))
    assert begun.wait(60)
    owner.connection.send(Push(0, audio[0][8000:], 8000), Close(0))
    owner.until(0, Ended)
    assert owner.text(0) == offline(toy, audio[0], chunk_ms=160) != ""
    assert not any(e.stream in (1, 2) for e in owner.seen)
    go_on.set()
    for stream in (1, 2):
        owner.until(stream, Ended)
        assert owner.text(stream) == offline(toy, audio[stream], chunk_ms=1120) != ""
    assert made == [LONG]


def test_two_names_of_the_same_rows_make_them_once(
    engine: Engine, toy_bundle: Bundle, slow: tuple[threading.Event, threading.Event, list[int]]
) -> None:
    """By the default model, and by its path."""
    begun, go_on, made = slow
    engine.load()
    owner = Owner(engine)
    owner.connection.send(Open(0, chunk_ms=1120), Open(1, model=str(toy_bundle.path), chunk_ms=1120))
    assert begun.wait(60)
    go_on.set()
    for stream in (0, 1):
        owner.until(stream, Started)
    assert made == [LONG]


def test_no_memory_for_them_is_a_refusal_and_not_for_ever(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner(engine)

    def no_memory(group: DeviceGroup) -> bool:
        raise EngineFull("the device has no memory for 4 rows", 5.0)

    with monkeypatch.context() as patch:
        patch.setattr(DeviceGroup, "_make_room", no_memory)
        owner.connection.send(Open(0, chunk_ms=160))
        refused = owner.until(0, Refused)
    assert isinstance(refused, Refused) and (refused.code, refused.retry_after) == ("EngineFull", 5.0)
    owner.connection.send(Open(1, chunk_ms=160), Push(1, utterance(5), 0), Close(1))
    owner.until(1, Ended)
    assert owner.text(1)


def test_what_was_made_before_a_refusal_is_let_go(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings of gigabytes, perhaps: the next try needs their place, whenever garbage may be collected by itself."""
    owner, made = Owner(engine), list[weakref.ref[DeviceGroup]]()

    def no_memory(group: DeviceGroup, size: int) -> None:
        made.append(weakref.ref(group))
        raise EngineFull("the device has no memory for steps of 4 rows", 5.0)

    engine.load()
    gc.collect()
    gc.disable()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(DeviceGroup, "_prepare", no_memory)
            for stream in range(3):
                owner.connection.send(Open(stream, chunk_ms=160))
                owner.until(stream, Refused)
        owner.connection.send(Open(9, chunk_ms=160))
        owner.until(9, Started)
        assert len(made) == 3 and not any(group() for group in made)
    finally:
        gc.enable()


@pytest.mark.parametrize("wrong", [Open(0, chunk_ms=123), Open(0, language="xx")])
def test_what_cannot_be_is_refused_as_elsewhere(
    engine: Engine, wrong: Open, slow: tuple[threading.Event, threading.Event, list[int]]
) -> None:
    owner = Owner(engine)
    owner.connection.send(wrong)
    refused = owner.until(0, Refused)
    assert isinstance(refused, Refused) and refused.code in ("UnsupportedChunk", "UnsupportedLanguage")

"""The client's side: engines of another version, of another user, that hang, and what is no engine."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import msgspec
import pytest

from nemostream import link, packing, wire
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import EngineLost, VersionMismatch
from nemostream.link import Link
from nemostream.models.bundle import Bundle
from nemostream.protocol import Checkpoint, Event, Failed, Open, Refused, Started
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Peer, Place
from tests.remote.raw import Raw, eventually
from tests.serving import ServedEngine, new_place

Answer = Callable[[wire.ToEngine], list[wire.FromEngine]]
WELCOME = wire.Welcome(wire.VERSION, "fake", os.getpid(), False)


class FakeEngine:
    """Listens at a place of its own and answers each frame with what `answer` says:

    with FakeEngine(lambda frame: []) as fake: ...

    Attributes:
        hellos: connections so far.
    """

    def __init__(self, answer: Answer) -> None:
        self._place = contextlib.ExitStack()
        self.place = self._place.enter_context(new_place())
        self.hellos = 0
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.place.socket))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected, connected.makefile("rb") as file:
            while head := file.read(wire.LENGTH):
                frame = wire.to_engine(file.read(int.from_bytes(head, "little")))
                self.hellos += isinstance(frame, wire.Hello)
                for answer in self._answer(frame):
                    connected.sendall(wire.pack(answer))

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._place:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()


@contextlib.contextmanager
def client_of(place: Place) -> Iterator[tuple[RemoteEngine, queue.Queue[Event]]]:
    """An engine's link and the events of one owner."""
    events: queue.Queue[Event] = queue.Queue()
    engine = RemoteEngine(Shared(place, spawn=False))
    try:
        yield engine, events
    finally:
        engine.close()


@pytest.fixture(scope="module")
def served(toy_bundle: Bundle) -> Iterator[ServedEngine]:
    engine = ServedEngine(Engine(EngineConfig(str(toy_bundle.path), "fp32", threads=1)))
    engine.load()
    yield engine
    engine.close()


@pytest.mark.parametrize("version", [wire.VERSION - 1, wire.VERSION + 1])
def test_a_client_of_another_version_is_told_both(served: ServedEngine, version: int) -> None:
    """Whatever else its Hello holds."""
    assert served.config.place is not None
    hello = {"type": "Hello", "version": version, "package": "9.9.9\n", "pid": 1, "added": [1, {"later": 2}]}
    body = msgspec.msgpack.encode(hello)
    with Raw(served.config.place, hello=None) as raw:
        raw.send(len(body).to_bytes(wire.LENGTH, "little") + body)
        goodbye = raw.farewell()
    assert goodbye is not None and goodbye.code == VersionMismatch.__name__
    for said in (
        f"protocol {wire.VERSION} ",
        f"client {version} ",
        "9.9.9",
        wire.package(),
        "install the same version",
    ):
        assert said in goodbye.message
    assert "\n" not in goodbye.message


def test_a_hello_with_a_field_more_is_welcome(served: ServedEngine) -> None:
    assert served.config.place is not None
    hello = {"type": "Hello", "version": wire.VERSION, "package": "1", "pid": 1, "added": "later"}
    body = msgspec.msgpack.encode(hello)
    with Raw(served.config.place, hello=None) as raw:
        raw.send(len(body).to_bytes(wire.LENGTH, "little") + body)
        raw.until(wire.Welcome)


@pytest.mark.parametrize(
    "answer",
    [
        wire.Goodbye(VersionMismatch.__name__, "the engine speaks protocol 7, the client 1"),
        wire.Welcome(7, "7.0", 1, False),
    ],
)
def test_an_engine_of_another_version_refuses_each_open_once(answer: wire.FromEngine) -> None:
    with FakeEngine(lambda frame: [answer]) as fake, client_of(fake.place) as (engine, events):
        connection = engine.connect(lambda found: [events.put(e) for e in found])  # type: ignore[func-returns-value]
        for stream in range(3):
            connection.send(Open(stream))
            refused = events.get(timeout=20)
            assert isinstance(refused, Refused) and refused.stream == stream
            assert refused.code == VersionMismatch.__name__ and refused.retry_after is None
            assert "protocol 7" in refused.message or "the engine 7" in refused.message
        with pytest.raises(VersionMismatch):
            engine.load()
        assert fake.hellos == 4


@pytest.mark.parametrize("nonsense", ["no such event", "a checkpoint of what was never sent"])
def test_an_engine_that_says_what_cannot_be_understood_loses_its_streams_typed(nonsense: str) -> None:
    def answer(frame: wire.ToEngine) -> list[wire.FromEngine]:
        if isinstance(frame, wire.Hello):
            return [WELCOME]
        if not isinstance(frame, wire.Messages):
            return []
        opened = packing.read_messages(frame)[0]
        if not isinstance(opened, Open):
            return []
        stream = opened.stream
        started = packing.events([Started(stream, 1, 1, "toy", "en", 160, 0.0)])
        if nonsense == "no such event":
            return [started, wire.Events([wire.Other("Nonsense", msgspec.Raw(b"\x01"))])]
        return [started, packing.events([Checkpoint(stream, 1, 2, 2**62, b"")])]

    with FakeEngine(answer) as fake, client_of(fake.place) as (engine, events):
        connection = engine.connect(lambda found: [events.put(e) for e in found])  # type: ignore[func-returns-value]
        for _ in range(2):
            connection.send(Open(1))
            assert isinstance(events.get(timeout=20), Started)
            failed = events.get(timeout=20)
            assert isinstance(failed, Failed) and failed.code == EngineLost.__name__ and failed.retryable


async def opened(place: Place, spawn: bool = False) -> Link:
    one = Link(place, spawn)
    await asyncio.wait_for(one.open(), 20)
    return one


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("spawned", [True, False])
async def test_only_a_spawned_engine_that_hangs_is_ended(
    greets: bool, spawned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says welcome and then nothing more, or nothing at all."""
    ended: list[int] = []
    monkeypatch.setattr(link, "PING_SECONDS", 0.01)
    monkeypatch.setattr(link, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(link, "GREET_SECONDS", 0.05)
    monkeypatch.setattr(link.os, "kill", lambda pid, number: ended.append(pid))
    with FakeEngine(lambda frame: [WELCOME] if greets and isinstance(frame, wire.Hello) else []) as fake:
        kind = "spawned" if spawned else "service"
        fake.place.socket.with_name("engine.sock.lock").write_text(f"{os.getpid()} {kind}")
        one = Link(fake.place, spawn=False)
        if greets:
            await one.open()
            assert await asyncio.wait_for(one.read(), 20) is None
        else:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(one.open(), 0.5)
        assert set(ended) == ({os.getpid()} if spawned else set())


async def test_an_engine_that_answers_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it was asked."""
    monkeypatch.setattr(link, "PING_SECONDS", 0.01)
    monkeypatch.setattr(link, "SILENT_SECONDS", 0.2)
    with FakeEngine(lambda frame: [WELCOME if isinstance(frame, wire.Hello) else wire.Reply(wire.PING)]) as fake:
        one = await opened(fake.place)
        for i in range(60):
            assert await asyncio.wait_for(one.read(), 20) == wire.Reply(wire.PING)
            if i == 30:
                time.sleep(0.5)  # this process was stopped: its own pause is not the engine's
        one.close()


async def test_nobody_talks_to_another_users_engine(served: ServedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.config.place is not None
    monkeypatch.setattr(link, "peer", lambda s: Peer(1, os.getuid() + 1))
    with pytest.raises(EngineLost, match="another user"):
        await opened(served.config.place)


async def test_nobody_talks_at_a_place_that_others_can_write_to() -> None:
    """Who can write there could put a socket of their own."""
    with FakeEngine(lambda frame: [WELCOME]) as fake:
        fake.place.socket.parent.chmod(0o777)
        with pytest.raises(EngineLost, match="0700"):
            await opened(fake.place)
        assert fake.hellos == 0


async def test_a_link_that_is_given_up_leaves_no_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEngine(lambda frame: []) as fake:
        one = Link(fake.place, spawn=False)
        handles = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(one.open(), 0.02)
        await asyncio.sleep(0)
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= handles)


def _in_a_fork(place: str, answer: multiprocessing.SimpleQueue[tuple[int, float]]) -> None:
    from pathlib import Path

    threads = threading.active_count()
    engine = RemoteEngine(Shared(Place(Path(place)), spawn=False))
    answer.put((threads, engine.stats()["max_streams"]))
    engine.close()


def test_a_forkserver_that_has_imported_everything_forks_clients(served: ServedEngine) -> None:
    """As LiveKit does: no thread and no socket may exist before a process is of its own."""
    assert served.config.place is not None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nemostream.remote", "nemostream.registry", "livekit.plugins.nemo"])
    answer: multiprocessing.SimpleQueue[tuple[int, float]] = context.SimpleQueue()
    jobs = [context.Process(target=_in_a_fork, args=(str(served.config.place.socket), answer)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert [answer.get() for _ in jobs] == [(1, served.behind.config.max_streams)] * 2

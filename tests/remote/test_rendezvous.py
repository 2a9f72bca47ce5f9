"""One engine at a place: who starts it, who may, when it ends, and what stands in the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nemostream import link, rendezvous, wire
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import EngineLost, EngineTaken
from nemostream.link import Link
from nemostream.models.bundle import Bundle
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Place
from nemostream.server import Server
from tests.remote.raw import Raw, eventually
from tests.serving import ServedEngine, new_place


@pytest.fixture
def place() -> Iterator[Place]:
    """Whoever was started here is ended."""
    with new_place() as place:
        yield place


def engine_of(place: Place) -> int:
    """The process that holds, or held, the place."""
    return int(Path(f"{place.socket}.lock").read_text().split()[0])


def serve(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nemostream", "serve", "--socket", str(place.socket), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_one_process_holds_a_place(place: Place) -> None:
    with place.hold():
        with pytest.raises(EngineTaken, match="already"), place.hold():
            pass
        by_hand, spawned = serve(place), serve(place, "--spawned")
    assert by_hand.returncode == 1 and spawned.returncode == 0
    assert re.fullmatch(r"nemostream: an engine is running at \S+ already\n", by_hand.stderr)
    with place.hold():
        pass


def test_what_a_dead_engine_left_is_no_obstacle(place: Place, toy_bundle: Bundle) -> None:
    script = f"""
import os, socket, sys
from pathlib import Path
from nemostream.rendezvous import Place
with Place(Path({str(place.socket)!r})).hold(spawned=True):
    s = socket.socket(socket.AF_UNIX); s.bind({str(place.socket)!r}); s.listen()
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script], timeout=20)
    assert place.socket.is_socket()
    server = Server(Engine(EngineConfig(str(toy_bundle.path))), place)

    async def run() -> None:
        running = asyncio.create_task(server.run())
        one = Link(place, spawn=False)
        await asyncio.wait_for(one.open(), 20)
        one.close()
        server.stop()
        await running

    asyncio.run(run())
    assert not place.socket.exists()


def refused(place: Place, says: str) -> None:
    """Both for who serves and for who asks."""
    with pytest.raises(EngineLost, match=says) as error, place.hold():
        pass
    assert "\n" not in str(error.value)
    with pytest.raises(EngineLost, match=says):
        asyncio.run(asyncio.wait_for(Link(place, spawn=True).open(), 20))


def test_a_place_that_cannot_be_used_is_one_sentence(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place.socket.parent
    refused(Place(folder / ("x" * 200)), "shorter path")
    refused(Place(Path("/proc/nemostream/engine.sock")), "cannot be used")
    (folder / "file").touch()
    refused(Place(folder / "file" / "engine.sock"), "cannot be used")
    (folder / "link").symlink_to(folder)
    refused(Place(folder / "link" / "engine.sock"), "0700")
    (folder / "dir.sock.lock").mkdir()
    (folder / "dir.sock.starting").mkdir()
    refused(Place(folder / "dir.sock"), "cannot be used")
    place.socket.write_text("notes")
    with pytest.raises(EngineLost, match="no socket"), place.hold():
        pass
    assert place.socket.read_text() == "notes"
    place.socket.unlink()
    folder.chmod(0o750)
    refused(place, "0700")
    folder.chmod(0o700)
    monkeypatch.setattr(rendezvous.os, "getuid", lambda: 4711)
    refused(place, "yours alone")
    assert serve(Place(folder / "dir.sock")).stderr.count("\n") == 1


def test_a_relative_path_is_the_same_place_for_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEMOSTREAM_SOCKET", "here/engine.sock")
    assert Place.default().socket == tmp_path / "here" / "engine.sock"


CLIENT = """
import sys
from pathlib import Path
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Place
place = Place(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
engine = RemoteEngine(Shared(place))
engine.stats()
print(Path(f"{place.socket}.lock").read_text(), flush=True)
sys.stdin.readline()
"""


def test_eight_processes_that_need_an_engine_at_once_get_one_and_it_ends_when_they_have_gone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never while a client is there, though the time is over."""
    monkeypatch.setenv("NEMOSTREAM_IDLE_EXIT", "0.5")
    os.symlink("/dev/full", place.log)  # and a log that has no room
    command = [sys.executable, "-c", CLIENT, str(place.socket)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    clients = [subprocess.Popen(command, **pipes) for _ in range(8)]  # type: ignore[call-overload]
    for client in clients:
        assert client.stdout.readline() == "ready\n"
    for client in clients:
        print("go", file=client.stdin, flush=True)
    engines = {client.stdout.readline() for client in clients}
    assert len(engines) == 1 and engines.pop().split()[1:] == ["spawned"]
    pid = engine_of(place)
    for client in clients[1:]:
        client.communicate("end\n", timeout=20)
    with Raw(place) as raw:  # a new client finds it, and two looks at who is there change nothing
        assert raw.read(alive=True) == raw.read(alive=True) == wire.Reply(wire.PING)
    assert engine_of(place) == pid
    process = psutil.Process(pid)
    clients[0].communicate("end\n", timeout=20)
    process.wait(20)
    assert not place.socket.exists()


def test_an_engine_that_cannot_start_is_one_error_with_its_last_words(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = place.socket.with_name("python")
    python.write_text("#!/bin/sh\necho some line\necho ModuleNotFoundError: no numpy >&2\nexit 3\n")
    python.chmod(0o700)
    right = sys.executable
    engine = RemoteEngine(Shared(place))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        for _ in range(2):
            with pytest.raises(EngineLost, match="could not be started: ModuleNotFoundError: no numpy"):
                engine.stats()
        python.write_text("#!/bin/sh\nkill -9 $$\n")
        with pytest.raises(EngineLost, match="exit status -9"):
            engine.stats()  # not the last words of the one before
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(EngineLost, match="No such file"):
            engine.stats()
        python.write_text("#!/bin/sh\nexec sleep 60\n")
        patch.setattr(sys, "executable", str(python))
        patch.setattr(link, "START_SECONDS", 0.2)
        with pytest.raises(EngineLost, match="did not listen within"):
            engine.stats()
    assert sys.executable == right
    assert engine.stats()["streams"] == 0  # the next one tries again
    engine.close()


def test_a_spawned_engine_that_hangs_is_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a conversation, and when nobody has a connection yet."""
    monkeypatch.setattr(link, "PING_SECONDS", 0.05)
    monkeypatch.setattr(link, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(link, "GREET_SECONDS", 0.5)
    engine = RemoteEngine(Shared(place))
    engine.stats()
    first = engine_of(place)
    os.kill(first, signal.SIGSTOP)
    engine.stats()
    second = engine_of(place)
    assert second != first
    engine.close()
    os.kill(second, signal.SIGSTOP)
    engine = RemoteEngine(Shared(place))
    engine.stats()
    assert engine_of(place) not in (first, second)
    eventually(lambda: not any(psutil.pid_exists(p) and alive(p) for p in (first, second)))
    engine.close()


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_client_that_comes_when_the_engine_ends_is_served_by_the_next_one(place: Place, toy_bundle: Bundle) -> None:
    ending = ServedEngine(Engine(EngineConfig(str(toy_bundle.path))))
    assert ending.config.place is not None
    shared = Shared(ending.config.place)
    clients = [RemoteEngine(shared) for _ in range(4)]
    clients[0].stats()
    ending._server_loop.call_soon_threadsafe(ending._server.stop)
    threads = [threading.Thread(target=client.stats) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    pid = engine_of(shared.place)  # type: ignore[arg-type]
    assert pid != os.getpid()
    for client in clients:
        client.close()
    ending.close()


def test_a_log_does_not_grow_without_bound(place: Place) -> None:
    place.prepare()
    with open(place.log, "ab", buffering=0) as log:
        for _ in range(3):
            log.write(b"x" * rendezvous.MAX_LOG + b"\n")
            place.trim_log()
            log.write(b"after\n")
        assert place.log.read_bytes() == b"after\n"
    assert place.last_words() == "after"
    assert Path(f"{place.log}.1").stat().st_size <= rendezvous.MAX_LOG + 8

"""What clients can do to the server, and that their neighbours do not notice: real sockets, real processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from nemostream import guest, idle, link, packing, server, wire
from nemostream.engine import Engine, EngineConfig
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Flush, Message, Mute, Open, Push
from nemostream.rendezvous import Peer
from tests.engine.conftest import offline, utterance
from tests.remote.raw import HELLO, Raw, eventually
from tests.remote.test_recovery import Talk, blocks
from tests.serving import EngineProcess, ServedEngine

ROWS = 12
NOBODY = 7


@pytest.fixture(scope="module")
def served(toy_bundle: Bundle) -> Iterator[ServedEngine]:
    engine = ServedEngine(Engine(EngineConfig(str(toy_bundle.path), "fp32", threads=1, max_streams=ROWS)))
    engine.load()
    with pytest.MonkeyPatch.context() as patch:
        # Or a source that pauses, because the machine is busy, would have its words finalised in the middle.
        patch.setattr(idle, "IDLE_SECONDS", 3600.0)
        yield engine
    engine.close()


class Neighbour:
    """Two streams that talk while something happens: `half()`, the disturbance, `end()`."""

    def __init__(self, served: ServedEngine, toy: Model, seed: int) -> None:
        self._speech = [utterance(seed + i, 6) for i in range(2)]
        self._expected = [offline(toy, s, chunk_ms=160) for s in self._speech]
        self._talk = Talk(served, self._speech)
        self._blocks = iter(blocks(self._speech))

    def half(self) -> None:
        for block in range(len(blocks(self._speech)) // 2):
            self._talk.say(next(self._blocks, block))

    def end(self) -> None:
        """The rest; every word must be there, and nothing may be missing or late beyond reading to the end."""
        for block in self._blocks:
            self._talk.say(block)
        self._talk.end()
        assert [self._talk.text(i) for i in range(2)] == self._expected
        assert all(f.whole for finals in self._talk.finals.values() for f in finals)


@pytest.fixture
def neighbour(served: ServedEngine, toy: Model, request: pytest.FixtureRequest) -> Iterator[Neighbour]:
    neighbour = Neighbour(served, toy, len(request.node.name))
    neighbour.half()
    yield neighbour
    neighbour.end()
    eventually(lambda: served.open_streams == 0)


CLIENT = """
import json, queue, sys
import numpy as np
from nemostream import link
from nemostream.protocol import *
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Place
from pathlib import Path
link.PING_SECONDS, link.SILENT_SECONDS = 0.05, 0.2
heard = queue.Queue()
connection = RemoteEngine(Shared(Place(Path(sys.argv[1])), spawn=False)).connect(lambda es: [heard.put(e) for e in es])
samples = np.frombuffer(sys.stdin.buffer.read(int(sys.argv[2])), np.float32)
connection.send(Open(1, chunk_ms=160), Open(2), Open(3), Push(1, samples[: len(samples) // 2], 0))
for _ in range(3):
    while not isinstance(heard.get(), Started): pass
print("started", flush=True)
sys.stdin.readline()
connection.send(Push(1, samples[len(samples) // 2 :], len(samples) // 2), Close(1))
found = []
while not isinstance(event := heard.get(), Ended):
    assert not isinstance(event, Failed)
    if isinstance(event, Final): found.append(event.text)
print(json.dumps(" ".join(t for t in found if t)), flush=True)
"""


def process_of(served: ServedEngine) -> subprocess.Popen[bytes]:
    """A media process with three streams, in the middle of a sentence."""
    place, samples = served.config.place, utterance(77, 6)
    assert place is not None
    command = [sys.executable, "-c", CLIENT, str(place.socket), str(samples.nbytes)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(samples.tobytes())
    process.stdin.flush()
    assert process.stdout.readline() == b"started\n"
    return process


def test_a_process_that_dies_frees_its_rows(served: ServedEngine, neighbour: Neighbour) -> None:
    process = process_of(served)
    assert served.open_streams == 5
    process.kill()
    process.communicate()
    eventually(lambda: served.open_streams == 2)


def test_a_process_that_is_stopped_harms_nobody_and_goes_on(
    served: ServedEngine, toy: Model, neighbour: Neighbour
) -> None:
    """Stopped for longer than it waits for an engine that hangs: it must not take its own pause for the engine's."""
    process = process_of(served)
    process.send_signal(signal.SIGSTOP)
    other = Neighbour(served, toy, 5)
    other.half()
    other.end()
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(b"go on\n", timeout=30)
    assert json.loads(out) == offline(toy, utterance(77, 6), chunk_ms=160)
    assert err == b""


def test_a_client_that_does_not_read_is_disconnected_at_the_bound(toy_bundle: Bundle) -> None:
    """And what waits for it does not fill the memory."""
    patch = "from nemostream import guest; guest.MAX_UNREAD = 4 << 20"
    with EngineProcess("--model", str(toy_bundle.path), "--threads", "1", before=patch) as process:
        engine = process.engine()
        engine.load()
        assert process.process is not None
        memory = psutil.Process(process.process.pid).memory_info
        before = memory().rss
        with Raw(process.place) as raw:
            raw.tell(Open(1), Open(2))
            eventually(lambda: engine.stats()["streams"] == 2)
            with pytest.raises(ConnectionError):
                for _ in range(200):
                    raw.tell(*[Open(1)] * wire.MAX_MESSAGES)
            eventually(lambda: engine.stats()["streams"] == 0)
        assert memory().rss - before < 80 << 20
        assert process.log().count("does not read its events") == 1
        assert "Traceback" not in process.log()


FLOODS: dict[str, Callable[[], list[Message]]] = {
    "opens": lambda: [Open(i) for i in range(1, 5000)],
    "messages to nobody": lambda: [Mute(NOBODY)] * 100_000,
    "flushes of nobody": lambda: [Flush(NOBODY, i) for i in range(40_000)],
    "flushes": lambda: [Open(1), *(Flush(1, i) for i in range(100_000))],
    "pushes": lambda: [Open(1), *(Push(1, utterance(1), i * 1000) for i in range(60))],
    "tiny pushes": lambda: [Open(1), *(Push(1, np.zeros(1, np.float32), i) for i in range(20_000))],
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_client_that_floods_is_held_back(served: ServedEngine, neighbour: Neighbour, toy: Model, kind: str) -> None:
    assert served.config.place is not None
    most = 0

    def flood() -> None:
        with Raw(served.config.place) as raw:  # type: ignore[arg-type]
            reading = threading.Thread(target=raw.farewell, daemon=True)
            reading.start()
            raw.tell(*FLOODS[kind]())
            sent.set()
            done.wait(30)

    sent, done = threading.Event(), threading.Event()
    flooding = threading.Thread(target=flood)
    other = Neighbour(served, toy, 50)
    other.half()
    eventually(lambda: served.open_streams == 4)
    flooding.start()
    while not sent.wait(0.001):
        most = max(most, served.behind.mail)
    other.end()
    done.set()
    flooding.join()
    assert most <= 2 * wire.MAX_MESSAGES + 1000


def test_too_many_loads_are_refused_and_a_load_may_outlive_its_client(
    served: ServedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.config.place is not None
    go_on = threading.Event()
    monkeypatch.setattr(served.behind, "load", lambda model: go_on.wait(20))
    with Raw(served.config.place) as raw:
        for i in range(1, guest.MAX_LOADS + 3):
            raw.send(wire.Call(i, "load", "slow"))
        for i in (guest.MAX_LOADS + 1, guest.MAX_LOADS + 2):
            reply = raw.until(wire.Reply, i)
            assert isinstance(reply, wire.Reply) and reply.code == "EngineFull"
    go_on.set()
    eventually(lambda: not any(t.name == "nemostream-load" for t in threading.enumerate()))
    monkeypatch.setattr(served.behind, "load", lambda model: 1 / 0)
    with Raw(served.config.place) as raw:
        raw.send(wire.Call(1, "load", "broken"))
        reply = raw.until(wire.Reply, 1)
        assert isinstance(reply, wire.Reply) and "ZeroDivisionError" in reply.message


def test_a_client_that_says_nothing_is_sent_away(served: ServedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.config.place is not None
    monkeypatch.setattr(server, "HELLO_SECONDS", 0.05)
    for begin in (b"", b"\x05\0\0", b"\x05\0\0\0ab"):
        with Raw(served.config.place, hello=None) as raw:
            raw.send(begin)
            goodbye = raw.farewell()
            assert goodbye is not None and "did not say hello within" in goodbye.message


def test_who_takes_time_to_say_hello_is_told_welcome_first(
    served: ServedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signs of life begin behind it."""
    assert served.config.place is not None
    monkeypatch.setattr(server, "WATCH_SECONDS", 0.01)
    looks: list[float] = []
    look = guest.Guest.look
    monkeypatch.setattr(guest.Guest, "look", lambda self, seconds: (looks.append(seconds), look(self, seconds)))
    with Raw(served.config.place, hello=None) as raw:
        eventually(lambda: looks.count(0.01) > 20)
        raw.send(HELLO)
        assert isinstance(raw.read(alive=True), wire.Welcome)
        assert raw.read(alive=True) == wire.Reply(wire.PING)


def test_half_a_frame_and_then_silence_ends_the_connection(
    served: ServedEngine, neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert served.config.place is not None
    monkeypatch.setattr(link, "PING_SECONDS", 0.1)
    monkeypatch.setattr(server, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(guest, "SILENT_SECONDS", 1.0)
    served.stats()
    with Raw(served.config.place) as raw:
        raw.tell(Open(1))
        raw.until(wire.Events)
        raw.send(wire.pack(packing.messages([Mute(1)]))[:-2])
        assert raw.farewell() is None
    assert [r.message for r in caplog.records if "has not finished a frame" in r.message]
    eventually(lambda: served.open_streams == 2)


def test_another_user_is_refused(served: ServedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.config.place is not None
    monkeypatch.setattr(guest, "peer", lambda s: Peer(1, os.getuid() + 1))
    with Raw(served.config.place, hello=None) as raw:
        goodbye = raw.farewell()
        assert goodbye is not None and "another user" in goodbye.message


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_users_process_is_refused_even_if_the_folder_is_open(served: ServedEngine) -> None:
    assert served.config.place is not None
    path = served.config.place.socket
    script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); print(s.recv(999))"
    os.chmod(path.parent, 0o755)
    os.chmod(path, 0o777)
    try:
        found = subprocess.run(["/usr/bin/env", "python3", "-c", script], user=65534, capture_output=True, timeout=20)
    finally:
        os.chmod(path.parent, stat.S_IRWXU)
    assert b"another user" in found.stdout


HANG = """
import time, pathlib
from nemostream import core, server
server.WATCH_SECONDS, server.STEP_SECONDS = 0.05, 0.3
flag, step = pathlib.Path({flag!r}), core.Core.step
def hang(self):
    if flag.exists() and len(self):
        flag.unlink()
        time.sleep(3600)
    return step(self)
core.Core.step = hang
"""


@pytest.mark.parametrize("terminated", [False, True])
def test_a_step_that_hangs_ends_the_process_and_clients_go_on(
    toy_bundle: Bundle, toy: Model, tmp_path: Path, terminated: bool
) -> None:
    speech = [utterance(300 + i, 6) for i in range(2)]
    expected = [offline(toy, s, chunk_ms=160) for s in speech]
    flag = tmp_path / "hang"
    arguments = "--model", str(toy_bundle.path), "--precision", "fp32", "--threads", "1"
    with EngineProcess(*arguments, before=HANG.format(flag=str(flag))) as process:
        talk = Talk(process.engine(), speech)
        for block in blocks(speech):
            talk.say(block)
            if block == len(blocks(speech)) // 2:
                flag.touch()
                eventually(lambda: not flag.exists())
                if terminated:
                    process.signal(signal.SIGTERM)
                assert process.wait() == server.HUNG
                process.start()
        talk.end()
        assert [talk.text(i) for i in range(2)] == expected
        log = process.log()
        assert log.count("the process ends") == 1
        assert "Traceback" not in log and not any(
            f.text in log for fs in talk.finals.values() for f in fs if " " in f.text
        )


def test_a_server_that_was_stopped_does_not_take_its_clients_for_dead(toy_bundle: Bundle) -> None:
    patch = "from nemostream import guest, server; server.WATCH_SECONDS, guest.SILENT_SECONDS = 0.05, 0.5"
    with EngineProcess("--model", str(toy_bundle.path), "--threads", "1", before=patch) as process:
        process.engine().stats()
        with Raw(process.place) as raw:
            assert raw.read(alive=True) == wire.Reply(wire.PING)  # it is being watched
            process.signal(signal.SIGSTOP)
            time.sleep(1.0)  # the pause itself
            process.signal(signal.SIGCONT)
            for _ in range(3):
                assert raw.read(alive=True) == wire.Reply(wire.PING)
            raw.send(wire.Call(1, "ping"))
            raw.until(wire.Reply, 1)

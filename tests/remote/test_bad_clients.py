"""What clients can do to the server, and that their neighbours do not notice: real sockets, real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from nemostream import guest, link, packing, server, wire
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Flush, Message, Mute, Open, Push
from tests.engine.conftest import offline, utterance
from tests.remote.neighbour import Neighbour
from tests.remote.raw import Raw, eventually
from tests.serving import EngineProcess, ServedEngine

NOBODY = 7

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

"""Models that take long to load: how many at once, and what ends meanwhile."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nemostream import guest, remote, wire
from nemostream.errors import EngineLost
from nemostream.models.bundle import MANIFEST, Bundle
from nemostream.protocol import Event, Open, Refused
from tests.remote.raw import Raw, eventually
from tests.serving import EngineProcess, ServedEngine


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


LOADED_AGAIN_AND_AGAIN = """
import onnxruntime, pathlib
from nemostream.encoders import onnx
def load(backend, bundle, precision, threads):
    while True:
        onnxruntime.InferenceSession(str(bundle.encoder("fp32")), providers=["CPUExecutionProvider"])
        pathlib.Path({began!r}).touch()
onnx.OnnxBackend.__init__ = load
"""


class Endless:
    """A file that is never read to its end, in place of `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        path.unlink()
        os.mkfifo(path)

    def is_read(self) -> bool:
        """Has somebody opened it?"""
        with contextlib.suppress(OSError):  # ENXIO: nobody has
            self._handle = self._handle or os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        return self._handle is not None

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)


@pytest.mark.parametrize("where", ["in a file", "in onnxruntime"])
def test_an_engine_that_is_ended_while_a_model_loads_ends_well(
    toy_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Two clients wait: one for its stream, one for the model. Both hear of the loss, and the place is free."""
    slow, began = tmp_path / "slow", tmp_path / "began"
    shutil.copytree(toy_bundle.path, slow)
    heard: queue.Queue[Event] = queue.Queue()

    def take(events: Sequence[Event]) -> None:
        for event in events:
            heard.put(event)

    with contextlib.ExitStack() as stack:
        if where == "in a file":
            before, loads = "", stack.enter_context(contextlib.closing(Endless(slow / MANIFEST))).is_read
        else:
            before, loads = LOADED_AGAIN_AND_AGAIN.format(began=str(began)), began.exists
        process = stack.enter_context(EngineProcess("--threads", "1", before=before))
        first, second = process.engine(), process.engine()
        assert first.stats()["streams"] == second.stats()["streams"] == 0
        first.connect(take).send(Open(1, model=str(slow)))
        loading = stack.enter_context(ThreadPoolExecutor()).submit(second.load, str(slow))
        eventually(loads)
        monkeypatch.setattr(remote, "GIVE_UP", 0.2)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        refused = heard.get(timeout=20)
        assert isinstance(refused, Refused) and refused.code == EngineLost.__name__ and refused.retry_after
        with pytest.raises(EngineLost):
            loading.result(20)
        assert heard.empty() and not process.place.socket.exists()
        with process.place.hold():
            pass
        monkeypatch.undo()
        process.start()
        assert first.stats()["streams"] == second.stats()["streams"] == 0
        assert "Traceback" not in process.log()

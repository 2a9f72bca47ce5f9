"""Engines over the socket for tests: in this process on a thread, or in one of their own as users run them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import psutil

from nemostream.engine import Engine
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Place
from nemostream.server import Server


@contextmanager
def new_place() -> Iterator[Place]:
    """A place of its own; pytest's tmp_path can be too long for a socket. What clients started there is ended with it,
    and its folder is removed."""
    with tempfile.TemporaryDirectory(prefix="ns-") as folder:
        place = Place(Path(folder) / "engine.sock")
        try:
            yield place
        finally:
            engines = engines_at(place)
            for engine in engines:
                with suppress(psutil.NoSuchProcess):
                    engine.kill()
            psutil.wait_procs(engines, timeout=10)


def engines_at(place: Place) -> list[psutil.Process]:
    """Processes that serve there, or are about to."""
    wanted = {"serve", str(place.socket)}
    return [p for p in psutil.process_iter(["cmdline"]) if wanted <= set(p.info["cmdline"] or [])]


class ServedEngine(RemoteEngine):
    """A RemoteEngine together with the engine behind it, which is `behind` and runs in this process."""

    def __init__(self, behind: Engine) -> None:
        self.behind = behind
        self._place = ExitStack()
        place = self._place.enter_context(new_place())
        super().__init__(Shared(place, spawn=False))
        ready = threading.Event()
        self._server_loop = asyncio.new_event_loop()

        async def serve() -> None:
            self._server = Server(behind, place)
            self._server_loop.call_soon(ready.set)
            await self._server.run()

        self._server_thread = threading.Thread(target=lambda: self._server_loop.run_until_complete(serve()))
        self._server_thread.start()
        ready.wait(10)

    @property
    def open_streams(self) -> int:
        """Rows that are taken behind the socket."""
        return self.behind.open_streams

    @property
    def encoder_calls(self) -> int:
        """Steps of the engine behind the socket."""
        return self.behind.encoder_calls

    def close(self) -> None:
        with self._place:
            super().close()
            self._server_loop.call_soon_threadsafe(self._server.stop)
            self._server_thread.join(20)
            self._server_loop.close()


class EngineProcess:
    """`nemostream serve`, at a place where nobody else looks.

    with EngineProcess("--model", str(path)) as process:
        engine = process.connect()
        process.kill(); process.start()
    """

    def __init__(self, *arguments: str, before: str = "") -> None:
        """`before`: Python that the process runs first."""
        self._place = ExitStack()
        self.place = self._place.enter_context(new_place())
        code = f"{before}\nfrom nemostream.__main__ import main\nmain()"
        self._command = [sys.executable, "-c", code, "serve", "--socket", str(self.place.socket), *arguments]
        self._engines: list[RemoteEngine] = []
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EngineProcess:
        self.start()
        return self

    def start(self) -> None:
        with open(f"{self.place.socket}.log", "ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def engine(self) -> RemoteEngine:
        """A link of its own to the engine; closed with the process."""
        self._engines.append(RemoteEngine(Shared(self.place, spawn=False)))
        return self._engines[-1]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Its exit status."""
        assert self.process is not None
        return self.process.wait(10)

    def log(self) -> str:
        return Path(f"{self.place.socket}.log").read_text()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._place:
            for engine in self._engines:
                engine.close()
            assert self.process is not None
            if self.process.poll() is None:
                self.process.terminate()
            self.process.wait(20)

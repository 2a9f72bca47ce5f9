"""GatewayProcess: the gateway by its documented command, with an engine that is no one else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from types import TracebackType

import httpx2 as httpx

from tests.serving import engines_at, new_place

START_SECONDS = 60.0
BANNER = "listening on "


class GatewayProcess:
    """`python -m nemostream_agent gateway --port 0 ...`, ready when entered.

    with GatewayProcess("--max-streams", "2") as gateway:
        gateway.http, gateway.ws     # "http://127.0.0.1:port", "ws://127.0.0.1:port"
    """

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None, ready: bool = True) -> None:
        """`ready`: wait until /health says ok."""
        self._stack = ExitStack()
        self.place = self._stack.enter_context(new_place())
        self._command = [sys.executable, "-m", "nemostream_agent", "gateway", "--port", "0", *arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ASR_", "NEMOSTREAM_"))}
        self._environment = {**clean, "NEMOSTREAM_SOCKET": str(self.place.socket), "NEMOSTREAM_IDLE_EXIT": "5"}
        self._environment |= environment or {}
        self._ready = ready
        self._log = self._stack.enter_context(tempfile.TemporaryFile("w+"))
        self.process: subprocess.Popen[str]
        self.http = ""

    @property
    def ws(self) -> str:
        return "ws" + self.http.removeprefix("http")

    def __enter__(self) -> GatewayProcess:
        self.process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        try:
            assert self.process.stdout is not None
            banner = self.process.stdout.readline()
            assert banner.startswith(BANNER), f"{banner!r} {self.log()}"
            self.http = banner.removeprefix(BANNER).strip()
            if self._ready:
                self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                with urllib.request.urlopen(f"{self.http}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise AssertionError(f"not ready after {START_SECONDS:g} s: {self.log()}")

    def health(self) -> dict[str, object]:
        answer: dict[str, object] = httpx.get(f"{self.http}/health").json()
        return answer

    def metric(self, name: str) -> float:
        """The sum over all labels of a figure in /metrics."""
        lines = httpx.get(f"{self.http}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit status."""
        return self.process.wait(seconds)

    def engines(self) -> int:
        """Processes that are its engine."""
        return len(engines_at(self.place))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if self.process.poll() is None:
                self.terminate()
                killer = threading.Timer(30.0, self.process.kill)
                killer.start()
                self.process.wait()
                killer.cancel()
            if self.process.stdout is not None:
                self.process.stdout.close()

"""Our own gateway to measure, with an engine that is no one else's.

with Gateway(["--max-streams", "100"]) as gateway:
    gateway.ws                     # "ws://127.0.0.1:port"
    gateway.pids()                 # {"gateway": 123, "engine": 124}
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import httpx2 as httpx
import psutil

READY_SECONDS, END_SECONDS = 120.0, 60.0
BANNER = "listening on "


class Gateway:
    """`python -m nemostream_agent gateway --port 0 ...`, ready when entered.

    Raises:
        RuntimeError: it does not start.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ns-")))
        self._socket, self._log = str(folder / "engine.sock"), folder / "gateway.log"
        self._command = [sys.executable, "-m", "nemostream_agent", "gateway", "--port", "0", *options]
        self.http = ""

    @property
    def ws(self) -> str:
        return "ws" + self.http.removeprefix("http")

    def pids(self) -> dict[str, int]:
        wanted = {"serve", self._socket}
        engines = [p.pid for p in psutil.process_iter(["cmdline"]) if wanted <= set(p.info["cmdline"] or [])]
        return dict(zip(("gateway", "engine"), [self._process.pid, *engines], strict=False))

    def __enter__(self) -> Gateway:
        environment = {**os.environ, "NEMOSTREAM_SOCKET": self._socket, "NEMOSTREAM_IDLE_EXIT": "5"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            assert self._process.stdout is not None
            banner = self._process.stdout.readline()
            if not banner.startswith(BANNER):
                raise RuntimeError(f"the gateway has not started: {self._log.read_text()[-500:].strip()}")
            self.http = banner.removeprefix(BANNER).strip()
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.http}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the gateway is not ready: {self._log.read_text()[-500:].strip()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            engine = self.pids().get("engine")
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            if engine is not None:
                with suppress(psutil.Error):
                    left = psutil.Process(engine)
                    left.terminate()
                    left.wait(END_SECONDS)

"""AgentProcess: one of our programs as its own process, by the command that the documentation gives."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from types import TracebackType

from .livekit_server import LiveKitServer

START_TIMEOUT = 60.0
DRAIN_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
REGISTERED = "registered worker"


class AgentError(Exception):
    """The agent's process did not start."""


class AgentProcess:
    """`python -m nemostream_agent PROGRAM dev`, registered with `server` when entered, gone when left.

    Args:
        server: where it registers.
        program: one of ours.
        mode: how LiveKit's command line runs it, with its options.
        environment: more than LIVEKIT_URL and the keys.
    """

    def __init__(
        self,
        server: LiveKitServer,
        program: str = "captions",
        mode: Sequence[str] = ("dev",),
        environment: dict[str, str] | None = None,
    ) -> None:
        self._command = [sys.executable, "-m", "nemostream_agent", program, *mode]
        self._environment = {**os.environ, **server.environment, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._draining: asyncio.Task[None] | None = None
        self._registered = asyncio.Event()
        self._log: list[str] = []

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> str:
        return "".join(self._log)

    async def __aenter__(self) -> AgentProcess:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # A group of its own: Ctrl-C reaches us, and we stop it together with its job processes.
            start_new_session=True,
        )
        self._draining = asyncio.create_task(self._drain(self._process), name="agent.log")
        try:
            await self._wait_until_registered()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def drain(self) -> int:
        """Ask it to end, as an orchestrator does, and wait until it has; its exit status.

        Raises:
            asyncio.TimeoutError: it goes on.
        """
        assert self._process is not None
        self._process.terminate()
        return await asyncio.wait_for(self._process.wait(), DRAIN_TIMEOUT)

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
        except (TimeoutError, ProcessLookupError):
            pass
        finally:
            # Whatever of the group is left: a job process ignores polite signals.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            if self._draining is not None:
                self._draining.cancel()

    async def _wait_until_registered(self) -> None:
        assert self._draining is not None
        registered = asyncio.create_task(self._registered.wait())
        try:
            # The log ends when the process does.
            await asyncio.wait([registered, self._draining], timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            registered.cancel()
        if not self._registered.is_set():
            raise AgentError(f"`{' '.join(self._command[1:])}` did not start: {self.log[-600:].strip()}")

    async def _drain(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode(errors="replace")
            self._log.append(text)
            if REGISTERED in text:
                self._registered.set()

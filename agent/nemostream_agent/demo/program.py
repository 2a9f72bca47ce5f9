"""Program: one of our programs as a child of the demo, by the command that the documentation gives."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Sequence

from . import DemoError

STOP_SECONDS = 8.0
TAIL = 600
"""Characters of a log that an error shows."""


class Program:
    """`python -m ...` in a group of its own: Ctrl-C reaches the demo alone, which stops it.

    Args:
        name: what an error calls it.
        arguments: behind `python -m`.
        environment: more than the demo's own.
    """

    def __init__(self, name: str, arguments: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.name = name
        self._arguments = arguments
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._log = tempfile.TemporaryFile()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *self._arguments,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )

    async def line(self) -> str:
        """The next line of its standard output; empty at its end."""
        assert self._process is not None and self._process.stdout is not None
        return (await self._process.stdout.readline()).decode(errors="replace")

    def check(self) -> None:
        """
        Raises:
            DemoError: it has ended.
        """
        if self._process is not None and self._process.returncode is not None:
            raise self.ended()

    async def wait(self) -> None:
        """Until it ends by itself."""
        assert self._process is not None
        await self._process.wait()

    def ended(self) -> DemoError:
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip()[-TAIL:]
        return DemoError(f"{self.name} has ended: {said}" if said else f"{self.name} has ended.")

    async def stop(self) -> None:
        """Politely, then not."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except (TimeoutError, ProcessLookupError):
            pass
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await process.wait()

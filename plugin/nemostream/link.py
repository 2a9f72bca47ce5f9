"""A client's connection to the engine's process: found or started, greeted, watched.

link = Link(place, spawn=True)
await link.open()
link.write(frame)
frame = await link.read()        # None: the engine is gone
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time

from nemostream import wire
from nemostream.errors import EngineLost, VersionMismatch, WireError
from nemostream.rendezvous import Place

logger = logging.getLogger("nemostream")

GREET_SECONDS = 10.0
"""A new engine answers within this time (it imports, and listens before any model is loaded)."""
PING_SECONDS = 2.0
SILENT_SECONDS = 10.0
"""An engine that has said nothing for so long, though it is asked every PING_SECONDS, hangs."""
LOOK_SECONDS = 0.05
"""Between two looks for an engine that is about to start."""
PING = 0
"""Number of the calls that are pings."""


class Link:
    """One connection at a time."""

    def __init__(self, place: Place, spawn: bool) -> None:
        self.place = place
        self._spawn = spawn
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._watching: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._child: subprocess.Popen[bytes] | None = None

    async def open(self) -> None:
        """Connect; start an engine if there is none and that is wanted, else wait for one to come.

        Raises:
            VersionMismatch: the engine is of another version.
            EngineLost: an engine cannot be started.
        """
        while True:
            try:
                await self._greet()
                return
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, WireError) as error:
                logger.debug("no engine at %s: %s", self.place.socket, error)
                self.close()
            if self._spawn:
                await self._start()
            else:
                await asyncio.sleep(LOOK_SECONDS)

    async def read(self) -> wire.FromEngine | None:
        """The next frame; None once the connection is lost."""
        assert self._reader is not None
        try:
            frame = wire.from_engine(await wire.read_frame(self._reader))
        except (OSError, asyncio.IncompleteReadError):
            logger.warning("the engine is gone; its streams go on in the next one")
            self.close()
            return None
        except WireError as error:
            logger.error("the engine sent what cannot be read: %s", error)
            self.close()
            return None
        self._heard_at = time.monotonic()
        if isinstance(frame, wire.Goodbye):
            logger.warning("the engine closed the connection: %s", frame.message)
            self.close()
            return None
        return frame

    def write(self, frame: wire.ToEngine) -> None:
        """Send a frame. What is written to a lost connection is lost too: `read` says so."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.pack(frame))

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = self._watching = None

    async def _greet(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(self.place.socket)
        self.write(wire.Hello(wire.VERSION, wire.package(), os.getpid()))
        answer = wire.from_engine(await asyncio.wait_for(wire.read_frame(self._reader), GREET_SECONDS))
        if isinstance(answer, wire.Goodbye):
            self.close()
            if answer.code == VersionMismatch.__name__:
                raise VersionMismatch(answer.message)
            raise WireError(answer.message)
        if not isinstance(answer, wire.Welcome):
            raise WireError("the engine did not say welcome")
        self._heard_at = time.monotonic()
        self._watching = asyncio.create_task(self._watch(self._writer, answer))

    async def _start(self) -> None:
        """Start an engine, unless another client is about to; come back when it is worth another look."""
        with self.place.starting() as mine:
            if not mine:
                await asyncio.sleep(LOOK_SECONDS)
                return
            if self._child is not None:
                self._child.poll()
            self._child = child = self.place.spawn()
            deadline = time.monotonic() + GREET_SECONDS
            while time.monotonic() < deadline:
                await asyncio.sleep(LOOK_SECONDS)
                if child.poll() not in (None, 0):
                    raise EngineLost(f"an engine could not be started: {self.place.last_words()}")
                if child.returncode == 0 or await self._listens():
                    return

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self.place.socket)
        except OSError:
            return False
        writer.close()
        return True

    async def _watch(self, writer: asyncio.StreamWriter, engine: wire.Welcome) -> None:
        """Ask whether the engine is alive; one that hangs is left, and ended if a client started it."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            self.write(wire.Call(PING, "ping"))
            silent = time.monotonic() - self._heard_at
            if silent < SILENT_SECONDS:
                continue
            logger.error("the engine (process %d) has not answered for %.0f s", engine.pid, silent)
            if engine.spawned:
                os.kill(engine.pid, signal.SIGKILL)
            writer.transport.abort()
            return

"""A client's connection to the engine's process: found or started, greeted, watched.

link = Link(place, spawn=True)
await link.open()
link.write(frame)
frame = await link.read()        # None: the engine is gone
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections import deque

from nemostream import wire
from nemostream.errors import EngineLost, VersionMismatch, WireError
from nemostream.rendezvous import Peer, Place, peer

logger = logging.getLogger("nemostream")

GREET_SECONDS = 5.0
"""An engine that listens answers within this time; one that has not done so twice in a row hangs."""
START_SECONDS = 20.0
"""A new engine listens within this time (it imports; models are loaded later)."""
KILLED_TIMES = 5
"""A new engine that is killed so often, one after the other, is not started again."""
PING_SECONDS = 2.0
SILENT_SECONDS = 10.0
"""An engine that has said nothing for so long hangs: it speaks unasked every second, and answers every ping. Counted in
pings, not by the clock, which goes on while this process is stopped."""
LOOK_SECONDS = 0.05
"""Between two looks for an engine that is about to start."""


class Link:
    """One connection at a time."""

    def __init__(self, place: Place, spawn: bool, device: str | None = None) -> None:
        self.place = place
        self._spawn, self._device = spawn, device
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._watching: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._outbox: deque[bytes] = deque()
        self._unanswered = 0
        self._ungreeted = 0
        self._killed = 0
        self._child: subprocess.Popen[bytes] | None = None

    async def open(self) -> None:
        """Connect; start an engine if there is none and that is wanted, else wait for one to come.

        Raises:
            VersionMismatch: the engine is of another version.
            EngineLost: an engine cannot be started, or the place is not safe.
        """
        while True:
            self.place.prepare()
            try:
                reader, writer = await asyncio.open_unix_connection(self.place.socket)
            except OSError as error:
                logger.debug("nobody listens at %s: %s", self.place.socket, error)
                await (self._start() if self._spawn else asyncio.sleep(LOOK_SECONDS))
                continue
            self._reader, self._writer = reader, writer
            try:
                await self._greet(reader, writer)
                return
            except (TimeoutError, OSError, asyncio.IncompleteReadError, WireError) as error:
                # Somebody is there, so another one would not help.
                logger.debug("the engine at %s does not greet: %s", self.place.socket, error)
                self.close()
            except BaseException:
                self.close()
                raise
            await asyncio.sleep(LOOK_SECONDS)

    async def read(self) -> wire.FromEngine | None:
        """The next frame; None once the connection is lost."""
        if self._reader is None:
            return None
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
        self._unanswered = 0
        if isinstance(frame, wire.Goodbye):
            logger.warning("the engine closed the connection: %s", frame.message)
            self.close()
            return None
        return frame

    def write(self, frame: wire.ToEngine) -> None:
        """Send a frame. What is written to a lost connection is lost too: `read` says so."""
        writer = self._writer
        if writer is None or writer.is_closing():
            return
        if self._sending is None and not writer.transport.get_write_buffer_size():
            writer.write(wire.pack(frame))
            return
        # The transport copies all it holds with every frame that it is given: so it is given one at a time.
        self._outbox.append(wire.pack(frame))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(writer))

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._sending is not None:
            self._sending.cancel()
        self._outbox.clear()
        if self._writer is not None:
            self._writer.transport.abort()
        if self._child is not None:
            self._child.poll()  # leaves no zombie
        self._reader = self._writer = self._watching = self._sending = None

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # `read` says that the connection is lost
            await writer.drain()
            while self._outbox:
                writer.write(self._outbox.popleft())
                await writer.drain()
        self._sending = None

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine = peer(writer.get_extra_info("socket"))
        if engine.user != os.getuid():
            raise EngineLost(f"another user listens at {self.place.socket}; set NEMOSTREAM_SOCKET to another path")
        self.write(wire.Hello(wire.VERSION, wire.package(), os.getpid()))
        try:
            answer = wire.from_engine(await asyncio.wait_for(wire.read_frame(reader), GREET_SECONDS))
        except TimeoutError:
            self._ungreeted += 1
            if self._ungreeted > 1:
                self._end(engine, 2 * GREET_SECONDS)
            raise
        self._ungreeted = self._unanswered = self._killed = 0
        if isinstance(answer, wire.Goodbye):
            # Anything else may have another answer next time.
            raise (VersionMismatch if answer.code == VersionMismatch.__name__ else WireError)(answer.message)
        if not isinstance(answer, wire.Welcome):
            raise WireError("the engine did not say welcome")
        if answer.version != wire.VERSION:
            raise VersionMismatch(
                f"this process speaks protocol {wire.VERSION} (version {wire.package()}), the engine {answer.version} "
                f"(version {answer.package}); install the same version for both and restart the engine"
            )
        self._watching = asyncio.create_task(self._watch(writer, engine))

    async def _start(self) -> None:
        """Start an engine, unless another client is about to; come back when it is worth another look."""
        with self.place.starting() as mine:
            if not mine:
                await asyncio.sleep(LOOK_SECONDS)
                return
            if await self._listens():
                return  # another client's
            since = self.place.log_size()
            self._child = child = self.place.spawn(self._device)
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline:
                await asyncio.sleep(LOOK_SECONDS)
                status = child.poll()
                # One that lost the race for the place ends with 0; one that was killed is worth another try.
                self._killed += status is not None and status < 0
                if status is not None and (status > 0 or self._killed > KILLED_TIMES):
                    reason = self.place.last_words(since) or f"exit status {status}"
                    self._killed = 0
                    raise EngineLost(f"an engine could not be started: {reason}")
                if status is not None or await self._listens():
                    return
            child.kill()
            raise EngineLost(f"an engine was started and did not listen within {START_SECONDS:g} s")

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self.place.socket)
        except OSError:
            return False
        writer.close()
        return True

    async def _watch(self, writer: asyncio.StreamWriter, engine: Peer) -> None:
        """Ask whether the engine is alive; one that hangs is left, and ended if a client started it."""
        while self._unanswered * PING_SECONDS < SILENT_SECONDS:
            self._unanswered += 1
            self.write(wire.Call(wire.PING, "ping"))
            await asyncio.sleep(PING_SECONDS)
        self._end(engine, SILENT_SECONDS)
        writer.transport.abort()

    def _end(self, engine: Peer, seconds: float) -> None:
        logger.error("the engine (process %d) has not answered for %g s", engine.pid, seconds)
        if self.place.may_end(engine.pid):
            with contextlib.suppress(OSError):
                os.kill(engine.pid, signal.SIGKILL)

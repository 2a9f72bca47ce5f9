"""One engine for all processes of a machine: the protocol over a Unix socket (`nemostream serve`).

await Server(engine, place).run()      # until `stop`, or until it was idle for `idle_exit` seconds

asyncio on this thread, the engine on its own. A client that stops reading, floods or sends garbage loses its
connection, and its rows are free; the others notice nothing. Stopping fails no stream: clients take theirs, from the
last checkpoint, to whichever engine comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Sequence

from nemostream import wire
from nemostream.engine import Connection, Engine
from nemostream.errors import NemostreamError, VersionMismatch, WireError
from nemostream.protocol import Event
from nemostream.rendezvous import Place

logger = logging.getLogger("nemostream")

HELLO_SECONDS = 5.0
"""A client says who it is within this time."""
MAX_UNREAD = 64 << 20
"""Bytes of events that may wait for a client that does not read."""
MAX_MAIL = 20_000
"""Messages that may wait for the engine before clients have to wait with theirs."""
STEP_SECONDS = 10.0
"""A step that takes longer hangs: the process ends, and clients go on in another one."""
SPAWNED_IDLE_EXIT = float(os.environ.get("NEMOSTREAM_IDLE_EXIT", "60"))
"""Seconds without a client after which an engine that a client started ends."""
HUNG = 70
"""Exit status of a process whose step hung."""


class Server:
    """The socket of an engine.

    Args:
        spawned: a client started this process, and may end it when it does not answer.
        idle_exit: seconds without a client after which `run` returns; None: never.
    """

    def __init__(self, engine: Engine, place: Place, *, spawned: bool = False, idle_exit: float | None = None) -> None:
        self._engine = engine
        self._place = place
        self._spawned = spawned
        self._idle_exit = idle_exit
        self._clients: set[_Client] = set()
        self._idle_since = time.monotonic()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop`, or until nobody has come for a while. Closes the engine.

        Raises:
            EngineTaken: another engine serves this place.
            EngineLost: the socket's folder cannot be used.
        """
        with self._place.hold():
            self._place.socket.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(self._serve, self._place.socket, backlog=1024)
            self._idle_since = time.monotonic()
            logger.info("serving at %s", self._place.socket)
            watch = asyncio.create_task(self._watch())
            try:
                await self._stop.wait()
            finally:
                watch.cancel()
                server.close()
                for client in list(self._clients):
                    client.leave()
                await asyncio.to_thread(self._engine.close)

    def stop(self) -> None:
        """End `run`; on its loop."""
        self._stop.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            stuck = self._engine.busy_since
            if stuck is not None and now - stuck > STEP_SECONDS:
                logger.critical("a step has taken more than %g s; the process ends", STEP_SECONDS)
                os._exit(HUNG)
            if self._clients:
                self._idle_since = now
            elif self._idle_exit is not None and now - self._idle_since > self._idle_exit:
                self._stop.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(self._engine, writer)
        self._clients.add(client)
        try:
            await self._converse(client, reader)
        except (WireError, VersionMismatch) as error:
            logger.warning("a client is sent away: %s", error)
            client.write(wire.Goodbye(type(error).__name__, str(error)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it is gone
        finally:
            self._clients.discard(client)
            client.leave()

    async def _converse(self, client: _Client, reader: asyncio.StreamReader) -> None:
        _check_user(client.writer)
        try:
            hello = wire.to_engine(await asyncio.wait_for(wire.read_frame(reader), HELLO_SECONDS))
        except asyncio.TimeoutError:
            raise WireError(f"it did not say hello within {HELLO_SECONDS:g} s") from None
        if not isinstance(hello, wire.Hello):
            raise WireError("it did not say hello")
        if hello.version != wire.VERSION:
            raise VersionMismatch(
                f"the engine speaks protocol {wire.VERSION} (version {wire.package()}), the client {hello.version} "
                f"(version {hello.package}); install the same version for both and restart the engine"
            )
        client.write(wire.Welcome(wire.VERSION, wire.package(), os.getpid(), self._spawned))
        client.arrive()
        while True:
            frame = wire.to_engine(await wire.read_frame(reader))
            if isinstance(frame, wire.Messages):
                client.send(frame)
                while self._engine.mail > MAX_MAIL:
                    await asyncio.sleep(0.01)
            elif isinstance(frame, wire.Call):
                # A load takes seconds; what comes behind it does not wait.
                client.answer(frame)


class _Client:
    """One process that holds streams."""

    def __init__(self, engine: Engine, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def arrive(self) -> None:
        self._connection = self._engine.connect(self._deliver)

    def leave(self) -> None:
        """Close the connection; its rows are free."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for task in self._tasks:
            task.cancel()
        self.writer.close()

    def send(self, frame: wire.Messages) -> None:
        if self._connection is not None:
            self._connection.send(*wire.read_messages(frame))

    def answer(self, call: wire.Call) -> None:
        task = asyncio.create_task(self._answer(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: wire.Call) -> None:
        try:
            if call.name == "load":
                await asyncio.to_thread(self._engine.load, call.model)
                reply = wire.Reply(call.number)
            elif call.name == "stats":
                reply = wire.Reply(call.number, self._engine.stats())
            else:
                reply = wire.Reply(call.number)
        except NemostreamError as error:
            reply = wire.Reply(call.number, code=type(error).__name__, message=str(error))
        self.write(reply)

    def write(self, frame: wire.FromEngine) -> None:
        if self.writer.is_closing():
            return
        self.writer.write(wire.pack(frame))
        if self.writer.transport.get_write_buffer_size() > MAX_UNREAD:
            logger.warning("a client does not read its events; it is disconnected")
            self.writer.transport.abort()

    def _deliver(self, events: Sequence[Event]) -> None:
        """On the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._write_events, events)

    def _write_events(self, events: Sequence[Event]) -> None:
        if self._connection is not None:
            self.write(wire.events(events))


def _check_user(writer: asyncio.StreamWriter) -> None:
    """Only this user's processes are heard, whatever the folder's mode has become."""
    peer = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    if user != os.getuid():
        raise WireError("it belongs to another user")

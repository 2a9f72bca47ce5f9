"""One engine for all processes of a machine: the protocol over a Unix socket (`nemostream serve`).

await Server(engine, place).run()      # until `stop`, or until it was idle for `idle_exit` seconds

asyncio on this thread, the engine on its own. A client that stops reading or sends garbage loses its connection, and
its rows are free; one that floods is held back; the others notice nothing. Stopping fails no stream: clients take
theirs, from the last checkpoint, to whichever engine comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Sequence

from nemostream import wire
from nemostream.engine import Connection, Engine
from nemostream.errors import EngineFull, EngineLost, NemostreamError, VersionMismatch, WireError
from nemostream.protocol import Event, Flush
from nemostream.rendezvous import Place, peer

logger = logging.getLogger("nemostream")

HELLO_SECONDS = 5.0
"""A client says who it is within this time."""
MAX_HELLO = 1 << 16
"""Bytes of the frame in which it does."""
MAX_CLIENTS = 512
"""Connections at once; a process needs one."""
MAX_UNREAD = 256 << 20
"""Bytes of events that may wait for a client that does not read. A step may bring 32 snapshots of 5 MB at once."""
MAX_WAITING, MESSAGE_BYTES = 32 << 20, 4096
"""Bytes of a client's frames that may wait for the engine before no more are read, and what a message adds to them: so
8192 messages, which take the engine a tenth of a second or two."""
MAX_LOADS = 16
"""Models that are being loaded for `load` calls at once."""
WATCH_SECONDS = 1.0
"""Between two looks at the engine and the clients. What follows is counted in looks, not by the clock: a process that
was stopped and goes on must not take the others for dead."""
STEP_SECONDS = 10.0
"""A step that takes longer hangs: the process ends, and clients go on in another one."""
SILENT_SECONDS = 30.0
"""A client that has not finished a frame for so long is gone, whatever its socket says; it sends a ping every 2 s."""
FAREWELL_SECONDS = 1.0
"""For the last frames to leave before a connection is cut."""
SPAWNED_IDLE_EXIT = float(os.environ.get("NEMOSTREAM_IDLE_EXIT", "60"))
"""Seconds without a client after which an engine that a client started ends."""
HUNG = 70
"""Exit status of a process whose step hung."""
MARK = -1
"""The stream of a Flush behind each frame. No stream has that number, so the engine answers with Failed once it has
taken what was in front of it."""


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
        self._loads = threading.BoundedSemaphore(MAX_LOADS)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop`, or until nobody has come for a while. Closes the engine.

        Raises:
            EngineTaken: another engine serves this place.
            EngineLost: the socket's folder cannot be used.
        """
        with self._place.hold(self._spawned):
            try:
                server = await asyncio.start_unix_server(self._serve, self._place.socket, backlog=1024)
            except OSError as error:
                raise EngineLost(f"nobody can listen at {self._place.socket}: {error.strerror}") from error
            logger.info("serving at %s", self._place.socket)
            watch = asyncio.create_task(self._watch())
            try:
                await self._stop.wait()
            finally:
                self._stop.set()
                server.close()
                for client in list(self._clients):
                    client.leave()
                await asyncio.to_thread(self._engine.close)
                watch.cancel()  # not before: closing waits for a step, which may hang

    def stop(self) -> None:
        """End `run`; on its loop."""
        self._stop.set()

    async def _watch(self) -> None:
        step: float | None = None
        stuck = idle = 0.0
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            before, step = step, self._engine.busy_since
            stuck = stuck + WATCH_SECONDS if step is not None and step == before else 0.0
            if stuck >= STEP_SECONDS:
                logger.critical("a step has taken more than %g s; the process ends", STEP_SECONDS)
                os._exit(HUNG)
            for client in list(self._clients):
                client.look()
            idle = 0.0 if self._clients else idle + WATCH_SECONDS
            if self._idle_exit is not None and idle >= self._idle_exit and not self._stop.is_set():
                logger.info("nobody has come for %g s; the process ends", self._idle_exit)
                self._stop.set()
            if self._spawned:
                self._place.trim_log()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(self._engine, writer, self._loads)
        self._clients.add(client)
        try:
            await self._converse(client, reader)
        except NemostreamError as error:
            logger.warning("a client (process %d) is sent away: %s", client.pid, error)
            client.write(wire.Goodbye(type(error).__name__, str(error)))
        except (asyncio.IncompleteReadError, OSError):
            pass  # it is gone
        except Exception:
            logger.exception("a client (process %d) is lost to a defect", client.pid)
        finally:
            self._clients.discard(client)
            client.leave()

    async def _converse(self, client: _Client, reader: asyncio.StreamReader) -> None:
        await self._greet(client, reader)
        while not self._stop.is_set():
            body = await wire.read_frame(reader)
            frame = wire.to_engine(body)
            client.silent = 0.0
            if isinstance(frame, wire.Messages):
                await client.send(frame, len(body))
            elif isinstance(frame, wire.Call):
                client.answer(frame)
            else:
                raise WireError("it says hello again")

    async def _greet(self, client: _Client, reader: asyncio.StreamReader) -> None:
        if self._stop.is_set() or len(self._clients) > MAX_CLIENTS:
            raise EngineFull("the engine ends" if self._stop.is_set() else f"there are {MAX_CLIENTS} clients", 1.0)
        if client.user != os.getuid():  # whatever the folder's mode has become
            raise WireError("it belongs to another user")
        try:
            hello = wire.to_engine(await asyncio.wait_for(wire.read_frame(reader, MAX_HELLO), HELLO_SECONDS))
        except asyncio.TimeoutError:
            raise WireError(f"it did not say hello within {HELLO_SECONDS:g} s") from None
        if not isinstance(hello, wire.Hello):
            raise WireError("it did not say hello")
        if hello.version != wire.VERSION:
            raise VersionMismatch(
                f"the engine speaks protocol {wire.VERSION} (version {wire.package()}), the client {hello.version} "
                f"(version {wire.one_line(hello.package)}); install the same version for both and restart the engine"
            )
        client.write(wire.Welcome(wire.VERSION, wire.package(), os.getpid(), self._spawned))
        client.arrive()


class _Client:
    """One process that holds streams.

    Attributes:
        silent: seconds without a frame of its.
    """

    def __init__(self, engine: Engine, writer: asyncio.StreamWriter, loads: threading.BoundedSemaphore) -> None:
        self.pid, self.user = peer(writer.get_extra_info("socket"))
        self.silent = 0.0
        self._writer = writer
        self._engine = engine
        self._loads = loads
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._waiting: deque[int] = deque()
        self._waiting_bytes = 0
        self._taken = asyncio.Event()

    def arrive(self) -> None:
        self._connection = self._engine.connect(self._deliver)

    def leave(self) -> None:
        """Close the connection; its rows are free."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._taken.set()
        self._writer.close()
        if self._writer.transport.get_write_buffer_size():
            self._loop.call_later(FAREWELL_SECONDS, self._writer.transport.abort)

    def look(self) -> None:
        """From time to time: tell it that the engine is alive, and see whether it is."""
        self.write(wire.Reply(wire.PING))
        self.silent = 0.0 if self._held_back else self.silent + WATCH_SECONDS
        if self.silent >= SILENT_SECONDS:
            self._cut(f"it has not finished a frame for {SILENT_SECONDS:g} s")

    async def send(self, frame: wire.Messages, size: int) -> None:
        """Hand messages to the engine; come back when it has taken enough of them."""
        messages = wire.read_messages(frame)
        if self._connection is not None:
            self._connection.send(*messages, Flush(MARK, 0))
            self._waiting.append(size + MESSAGE_BYTES * (len(messages) + 1))
            self._waiting_bytes += self._waiting[-1]
        while self._held_back:
            self._taken.clear()
            await self._taken.wait()

    @property
    def _held_back(self) -> bool:
        return self._connection is not None and self._waiting_bytes > MAX_WAITING

    def answer(self, call: wire.Call) -> None:
        if call.name != "load":
            self.write(self._reply(call))
        elif self._loads.acquire(blocking=False):
            # It takes seconds; what comes behind it does not wait.
            threading.Thread(target=self._load, args=(call,), name="nemostream-load", daemon=True).start()
        else:
            error = f"{MAX_LOADS} models are being loaded; try again later"
            self.write(wire.Reply(call.number, code=EngineFull.__name__, message=error))

    def _load(self, call: wire.Call) -> None:
        """On a thread of its own."""
        reply = self._reply(call)
        self._loads.release()
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self.write, reply)

    def _reply(self, call: wire.Call) -> wire.Reply:
        try:
            if call.name == "load":
                self._engine.load(call.model)
            elif call.name == "stats":
                return wire.Reply(call.number, self._engine.stats())
            elif call.name != "ping":
                raise WireError(f"there is no call {wire.one_line(call.name)}")
            return wire.Reply(call.number)
        except NemostreamError as error:
            return wire.Reply(call.number, code=type(error).__name__, message=str(error))
        except Exception as error:
            text = f"{call.name} failed: {wire.one_line(repr(error))}"
            logger.error("%s", text)
            return wire.Reply(call.number, code=NemostreamError.__name__, message=text)

    def write(self, frame: wire.FromEngine) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(wire.pack(frame))
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            self._cut("it does not read its events")

    def _cut(self, why: str) -> None:
        logger.warning("a client (process %d) is disconnected: %s", self.pid, why)
        self._writer.transport.abort()

    def _deliver(self, events: Sequence[Event]) -> None:
        """On the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._write_events, events)

    def _write_events(self, events: Sequence[Event]) -> None:
        if self._connection is None:
            return
        theirs = [e for e in events if e.stream != MARK]
        for _ in range(len(events) - len(theirs)):
            self._waiting_bytes -= self._waiting.popleft()
            self._taken.set()
        for frame in wire.event_frames(theirs):
            self.write(frame)

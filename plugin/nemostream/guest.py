"""One client of the server: its messages go to the engine as fast as that takes them, events go back; it is watched.

guest = Guest(engine, transport, loads)
guest.arrive()
await guest.send(frame, size)          # comes back when the engine has taken enough
guest.leave()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Sequence

from nemostream import packing, wire
from nemostream.engine import Connection, Engine
from nemostream.errors import EngineFull, NemostreamError, WireError
from nemostream.protocol import Event, Flush, Pushes
from nemostream.rendezvous import peer

logger = logging.getLogger("nemostream")

MAX_UNREAD = 256 << 20
"""Bytes of events that may wait for a client that does not read. A step may bring 32 snapshots of 5 MB at once."""
MAX_WAITING, MESSAGE_BYTES = 32 << 20, 4096
"""Bytes of a client's frames that may wait for the engine before no more are read, and what a message adds to them: so
8192 messages, which take the engine a tenth of a second or two."""
MAX_LOADS = 16
"""Models that are being loaded for `load` calls at once."""
SILENT_SECONDS = 30.0
"""A client that has not finished a frame for so long is gone, whatever its socket says; it sends a ping every 2 s."""
FAREWELL_SECONDS = 1.0
"""For the last frames to leave before a connection is cut."""
MARK = -1
"""The stream of a Flush behind each frame. No stream has that number, so the engine answers with Failed once it has
taken what was in front of it."""


class Guest:
    """One process that holds streams.

    Attributes:
        silent: seconds without a frame of its.
    """

    def __init__(self, engine: Engine, transport: asyncio.Transport, loads: threading.BoundedSemaphore) -> None:
        self.pid, self.user = peer(transport.get_extra_info("socket"))
        self.silent = 0.0
        self._transport = transport
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
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(FAREWELL_SECONDS, self._transport.abort)

    def look(self, seconds: float) -> None:
        """Every so many seconds: tell it that the engine is alive, and see whether it is."""
        if self._connection is not None:  # else it waits for its welcome
            self.write(wire.Reply(wire.PING))
        self.silent = 0.0 if self._held_back else self.silent + seconds
        if self.silent >= SILENT_SECONDS:
            self._cut(f"it has not finished a frame for {SILENT_SECONDS:g} s")

    async def send(self, frame: wire.Messages, size: int) -> None:
        """Hand messages to the engine; come back when it has taken enough of them."""
        messages = packing.read_messages(frame)
        if self._connection is not None:
            self._connection.send(*messages, Flush(MARK, 0))
            count = sum(len(m) if isinstance(m, Pushes) else 1 for m in messages) + 1
            self._waiting.append(size + MESSAGE_BYTES * count)
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
            elif call.name == "describe":
                return wire.Reply(call.number, description=self._engine.describe())
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
        if self._transport.is_closing():
            return
        self._transport.write(wire.pack(frame))
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self._cut("it does not read its events")

    def _cut(self, why: str) -> None:
        logger.warning("a client (process %d) is disconnected: %s", self.pid, why)
        self._transport.abort()

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
        for frame in packing.event_frames(theirs):
            self.write(frame)

"""The frames that come over a connection, each received into memory of its own and copied nowhere.

server = await loop.create_unix_server(lambda: Frames(serve, limit=1 << 16), path)

async def serve(frames: Frames) -> None:
    body = await frames.read()               # EOFError at the end
    frames.transport.write(data)

asyncio's StreamReader copies each byte three times more, which is felt with the audio of thousands of streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

import numpy as np

from nemostream.errors import WireError
from nemostream.wire import LENGTH


class Serve(Protocol):
    def __call__(self, frames: Frames) -> Coroutine[Any, Any, None]: ...


class Frames(asyncio.BufferedProtocol):
    """One connection. While a frame waits to be read, no further one is received.

    Attributes:
        transport: to write to.
        limit: bytes of a frame.
    """

    transport: asyncio.Transport

    def __init__(self, serve: Serve, limit: int) -> None:
        """`serve(self)` runs as a task of its own once somebody has connected."""
        self.limit = limit
        self._serve = serve
        self._head = memoryview(bytearray(LENGTH))
        self._into = self._head
        self._got = 0
        self._frame: memoryview | None = None
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    async def read(self) -> memoryview:
        """The body of the next frame.

        Raises:
            WireError: it would be longer than `limit`.
            EOFError: the connection has ended.
        """
        while self._frame is None:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        frame, self._frame = self._frame, None
        self.transport.resume_reading()
        return frame

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._task = asyncio.get_running_loop().create_task(self._serve(self))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._into[self._got :]

    def buffer_updated(self, nbytes: int) -> None:
        self._got += nbytes
        if self._got < len(self._into):
            return
        self._got = 0
        if self._into is self._head:
            length = int.from_bytes(self._head, "little")
            if 0 < length <= self.limit:
                self._into = np.empty(length, np.uint8).data
                return
            error = f"a frame of {length} bytes; the limit is {self.limit}" if length else "an empty frame"
            self._error = WireError(error)
        else:
            self._frame, self._into = self._into, self._head
        self.transport.pause_reading()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = self._error or EOFError()
        self._changed.set()

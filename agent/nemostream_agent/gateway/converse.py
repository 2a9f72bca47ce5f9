"""A WebSocket and a session: what the client sends goes in, what the engine says comes out, until one of them ends.

await converse(socket, WsDialect(...), service, who)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from .dialect import Audio, Command, Dialect, End, Finalize, KeepAlive, Messages, Start
from .errors import GOING_AWAY, NORMAL, POLICY, Refusal, bad_data, refusal
from .service import Service
from .session import Session
from .settings import StreamOptions

logger = logging.getLogger("nemostream.gateway")

REASON_BYTES = 123
"""Of a close frame (RFC 6455, 5.5)."""


async def converse(socket: WebSocket, dialect: Dialect, service: Service, who: str) -> None:
    """Until the connection is closed; it must have been accepted. Never raises."""
    line = _Line(socket, dialect, service)
    code, reason = NORMAL, ""
    try:
        # A refusal is an answer within 100 ms: a full house is not asked for its options first.
        service.house.check(who)
        while (options := dialect.options or await line.start()) is not None:
            async with service.open(options, who, dialect.name) as session:
                await line.run(session)
            if not dialect.repeats or service.ending.is_set():
                break
    except WebSocketDisconnect:
        return
    except Exception as error:
        told = refusal(error)
        if told.status == 500:
            logger.exception("a conversation failed", extra={"protocol": dialect.name})
        code, reason = told.close, str(told)
        service.metrics.refused(told.code)
        with contextlib.suppress(Exception):
            await line.send(dialect.refused(told))
    if service.ending.is_set() and code == NORMAL:
        code, reason = GOING_AWAY, "the gateway is shutting down"
    await _close(socket, code, reason, service.settings.limits.stalled_seconds)


async def refuse(socket: WebSocket, error: Refusal, seconds: float = 10.0) -> None:
    """End an accepted connection before its dialect is known."""
    await _close(socket, error.close, str(error), seconds)


async def _close(socket: WebSocket, code: int, reason: str, seconds: float) -> None:
    if socket.application_state is not WebSocketState.CONNECTED:
        return
    short = reason.encode()[:REASON_BYTES].decode(errors="ignore")
    with contextlib.suppress(Exception):
        await asyncio.wait_for(socket.close(code, short), seconds)


class _Line:
    """The socket, with the limits on time."""

    def __init__(self, socket: WebSocket, dialect: Dialect, service: Service) -> None:
        self._socket, self._dialect, self._service = socket, dialect, service
        self._limits = service.settings.limits
        self._waits_since: float | None = time.monotonic()  # None: the client waits for us
        self._ends_at = time.monotonic() + self._limits.session_seconds

    async def start(self) -> StreamOptions | None:
        """What the client wants to open; None: the gateway ends.

        Raises:
            WebSocketDisconnect, Refusal
        """
        starting = asyncio.create_task(self._start(), name="gateway.start")
        try:
            await self._watch(starting)
            return starting.result() if starting.done() else None
        finally:
            starting.cancel()

    async def _start(self) -> StreamOptions:
        while True:
            command = await self._receive()
            if isinstance(command, Start):
                return command.options
            if not isinstance(command, (KeepAlive, End)):
                raise bad_data("the first message must start a stream; send init before audio")

    async def run(self, session: Session) -> None:
        """The stream, until all is said.

        Raises:
            WebSocketDisconnect, Refusal
        """
        await self.send(self._dialect.opened(session))
        reading = asyncio.create_task(self._read(session), name="gateway.read")
        writing = asyncio.create_task(self._write(session), name="gateway.write")
        try:
            await self._watch(reading, writing)
            if reading.done():
                reading.result()
            session.close()
            await writing
        finally:
            session.drop()
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read(self, session: Session) -> None:
        """Until the client ends the stream."""
        while not isinstance(command := await self._receive(), End):
            if isinstance(command, Audio):
                await session.push(command.data)
                await self.send(self._dialect.heard(session))
            elif isinstance(command, Finalize):
                session.flush()
            elif isinstance(command, Start):
                raise bad_data("a stream is open already; close it first")
        await session.finish()

    async def _write(self, session: Session) -> None:
        async for event in session:
            self._service.heard(event)
            await self.send(self._dialect.event(event))
        await self.send(self._dialect.ended(session))

    async def _receive(self) -> Command:
        self._waits_since = time.monotonic()
        message = await self._socket.receive()
        self._waits_since = None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data = message.get("bytes")
        return self._dialect.read(data if data is not None else str(message.get("text") or ""))

    async def _watch(self, *tasks: asyncio.Task[Any]) -> None:
        """Until one of them is done, or the gateway ends. One timer a connection, none a message.

        Raises:
            Refusal: the client has said nothing for too long, or has been here for too long.
        """
        ending = asyncio.create_task(self._service.ending.wait())
        try:
            while True:
                now = time.monotonic()
                idle_at = (self._waits_since or now) + self._limits.idle_seconds
                left = min(idle_at, self._ends_at) - now
                if left <= 0 and idle_at < self._ends_at:
                    raise Refusal(408, POLICY, "idle", f"nothing came for {self._limits.idle_seconds:g} s")
                if left <= 0:
                    limit = self._limits.session_seconds
                    raise Refusal(408, POLICY, "too_long", f"a connection may last {limit:g} s; connect again")
                done, _ = await asyncio.wait((*tasks, ending), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    return
        finally:
            ending.cancel()

    async def send(self, messages: Messages) -> None:
        """
        Raises:
            Refusal: the client does not read.
            WebSocketDisconnect: it is gone.
        """
        for message in messages:
            try:
                await asyncio.wait_for(self._socket.send_text(message), self._limits.stalled_seconds)
            except TimeoutError:
                raise Refusal(408, POLICY, "stalled", "the client does not read what it is sent") from None

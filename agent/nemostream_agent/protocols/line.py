"""A connection to a speech server over WebSocket: audio out, texts in.

async with connect("ws://host/ws", key) as line:
    await line.speak(frames, lambda heard: print(heard.text))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import aiohttp
import msgspec

from . import errors
from .address import talk_of
from .errors import ClientError
from .talk import Heard, Talk

CONNECT_SECONDS = 15.0
ANSWER_SECONDS = 60.0
"""Within which the last text must come after the end of the audio."""
CLOSE_SECONDS = 2.0
NORMAL = 1000
"""Close code: some servers say nothing else behind their last text."""


class Line:
    """Made by `connect`; one stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[bool], talk: Talk) -> None:
        self._socket, self._talk = socket, talk
        self._ended = False

    async def speak(
        self,
        frames: AsyncIterator[bytes],
        hear: Callable[[Heard], None],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Send `frames` of PCM16 at 16 kHz and the end of the stream, and hand each text to `hear` as it comes, until
        the server has said everything. `ended` is called when the end has been sent.

        Raises:
            ClientError: the server has refused the stream, or it has not come to its end.
        """
        reading = asyncio.create_task(self._read(hear))
        sending = asyncio.create_task(self._send(frames, ended))
        try:
            await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                sending.result()
                await asyncio.wait({reading}, timeout=ANSWER_SECONDS)
            if not reading.done():
                raise ClientError("no answer", f"no final text has come within {ANSWER_SECONDS:g} s of the end")
            reading.result()
        finally:
            for task in (reading, sending):
                task.cancel()
            await asyncio.gather(reading, sending, return_exceptions=True)

    async def _send(self, frames: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        with suppress(ConnectionError):  # why it was closed stands in what is read
            for message in self._talk.begin():
                await self._socket.send_str(message)
            async for frame in frames:
                await self._socket.send_bytes(frame)
            self._ended = True
            for message in self._talk.end():
                await self._socket.send_str(message)
            ended()

    async def _read(self, hear: Callable[[Heard], None]) -> None:
        while not self._talk.over:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                try:
                    heard = self._talk.read(message.data)
                except msgspec.MsgspecError as error:
                    raise ClientError("bad answer", f"the server speaks another protocol: {error}") from error
                if heard is not None:
                    hear(heard)
            elif message.type is not aiohttp.WSMsgType.BINARY:
                if self._ended and self._socket.close_code == NORMAL:
                    return
                raise errors.closed(self._socket.close_code, str(message.extra or ""))


@asynccontextmanager
async def connect(url: str, key: str | None = None, options: Mapping[str, str] | None = None) -> AsyncIterator[Line]:
    """
    Args:
        url: ws:// or wss://; its path says which protocol (address.py).
        key: API key or token.
        options: query parameters, beside those of `url`.

    Raises:
        ClientError: nobody is there, or nobody who speaks it.
    """
    talk = talk_of(url)
    headers = {"Authorization": f"{talk.scheme} {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        try:
            socket = await asyncio.wait_for(
                session.ws_connect(
                    url,
                    params={**talk.query, **(options or {})},
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                ),
                CONNECT_SECONDS,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise errors.answered(url, error.status) from error
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise errors.unreachable(url, error) from error
        try:
            yield Line(socket, talk)
        finally:
            await socket.close()

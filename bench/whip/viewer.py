"""Viewer: reads a room's captions by server-sent events (the HTML standard, section 9.2); none of our code.

async with Viewer(http, "kitchen") as viewer:
    await viewer.inbox.until(lambda: viewer.inbox.of("final"))
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType

import httpx2 as httpx

from bench.whip.client import Refused
from bench.whip.inbox import Inbox


class Viewer:
    """`last_event_id`: what comes behind that final is read."""

    def __init__(self, http: httpx.AsyncClient, room: str, last_event_id: str | None = None) -> None:
        self.inbox = Inbox()
        self._http, self._url = http, f"/rooms/{room}/captions"
        self._headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            self._headers["Last-Event-ID"] = last_event_id

    async def _read(self) -> None:
        try:
            async with self._http.stream("GET", self._url, headers=self._headers, timeout=None) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise Refused(response)
                data: list[str] = []
                id: str | None = None
                async for line in response.aiter_lines():
                    name, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    if name == "data":
                        data.append(value)
                    elif name == "id":
                        id = value
                    elif not line:
                        if data:
                            self.inbox.add("\n".join(data), id)
                        data, id = [], None
        finally:
            self.inbox.end()

    async def __aenter__(self) -> Viewer:
        """Ready once the first message came.

        Raises:
            Refused: it is not let in.
        """
        self._reading = asyncio.create_task(self._read())
        await self.inbox.until(lambda: self.inbox.messages or self.inbox.over)
        if not self.inbox.messages:
            await self._reading
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError, httpx.HTTPError):
            await self._reading

"""Clients of the gateway's WebSocket protocols, written from their descriptions: plain `websockets`, none of our code.

And what they must be told: `by_file`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import websockets

from nemostream.model import Model
from nemostream.models import catalog
from nemostream.protocol import Endpointing
from tests.clips import clip
from tests.engine.driver import Driver


def pcm(name: str) -> bytes:
    """A clip as 16-bit samples at 16 kHz."""
    return (clip(name) * 32767).astype("<i2").tobytes()


def by_file(data: bytes, endpointing: Endpointing | None = None, chunk_ms: int | None = None) -> str:
    """What the same samples are as a file, by the engine's core in this process: the text that a server must give."""
    driver = Driver(_embedded(), chunk_ms=chunk_ms, endpointing=endpointing)
    driver.open(1)
    samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    for begin in range(0, len(samples), 16_000):
        driver.push(1, samples[begin : begin + 16_000])
    driver.close(1)
    return driver.text(1)


@lru_cache
def _embedded() -> Model:
    return Model.load(catalog.resolve(None), None, None)


@dataclass(slots=True)
class Heard:
    """What a connection was told: its text messages, decoded where they are JSON; how it was closed."""

    messages: list[Any] = field(default_factory=list)
    code: int | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        """Of /ws: the finals."""
        return " ".join(m["text"] for m in self.messages if isinstance(m, dict) and m.get("is_final"))


async def read(socket: websockets.ClientConnection) -> Heard:
    """All that comes until the connection is closed, however it is."""
    heard = Heard()
    try:
        while True:
            message = await asyncio.wait_for(socket.recv(), 60)
            heard.messages.append(json.loads(message) if str(message).startswith("{") else message)
    except websockets.ConnectionClosed:
        heard.code, heard.reason = socket.close_code, socket.close_reason or ""
    return heard


async def ws(url: str, data: bytes, size: int = 640, every: float = 0.0) -> Heard:
    """Say `data` over /ws, as fast as it is taken, or a message every so many seconds."""
    async with websockets.connect(url) as socket:
        reading = asyncio.create_task(read(socket))
        with contextlib.suppress(websockets.ConnectionClosed):  # refused: `read` knows how
            for begin in range(0, len(data), size):
                await socket.send(data[begin : begin + size])
                await asyncio.sleep(every)
            await socket.send("END")
        return await reading

"""A gateway as an operator runs one: a key, a log, a collector of traces. Shared by the tests of all three."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import websockets

from tests.clips import TEXTS
from tests.gateway.clients import Heard, pcm, read
from tests.gateway.process import GatewayProcess
from tests.gateway.receiver import Receiver


@dataclass
class Guarded:
    gateway: GatewayProcess
    receiver: Receiver
    key: str


@contextmanager
def guarded(*options: str, collector: str | None = None) -> Iterator[Guarded]:
    """The client's name is environment-1. `collector`: another than the receiver."""
    key = secrets.token_urlsafe()
    with Receiver() as receiver:
        names = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector or receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with GatewayProcess(*options, environment={**names, "NEMOSTREAM_API_KEYS": key}) as gateway:
            yield Guarded(gateway, receiver, key)


async def say(url: str, key: str, data: bytes | str, **headers: str) -> tuple[Heard, str]:
    """What comes of `data` over /ws, and the request's id."""
    given = {"Authorization": f"Bearer {key}", **headers}
    async with websockets.connect(url, additional_headers=given) as socket:
        reading = asyncio.create_task(read(socket))
        with contextlib.suppress(websockets.ConnectionClosed):
            await socket.send(data)
            await socket.send("END")
        assert socket.response is not None
        return await reading, socket.response.headers["X-Request-Id"]


def quotes(told: str | bytes) -> list[str]:
    """Three words in a row of any clip that stand there, or the garbage of these tests."""
    text = told if isinstance(told, str) else told.decode(errors="replace")
    words = [clip.split() for clip in TEXTS.values()]
    runs = [" ".join(w[i : i + 3]) for w in words for i in range(len(w) - 2)]
    return [run for run in [*runs, GARBAGE] if run in text]


NOBODY = "http://127.0.0.1:9"
GARBAGE = "somebody said this by mistake"
MUSIC = pcm("music")

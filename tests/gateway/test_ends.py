"""The end of a gateway, of its engine, and of connections that last too long: everybody gets the final text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket

import websockets
from fastapi import WebSocket

from nemostream.engine import Engine
from nemostream_agent.gateway.app import create_app
from nemostream_agent.gateway.converse import converse
from nemostream_agent.gateway.dialect import Messages
from nemostream_agent.gateway.service import Service
from nemostream_agent.gateway.settings import Limits, Settings, StreamOptions
from nemostream_agent.gateway.ws import WsDialect
from tests.clips import TEXTS
from tests.gateway.clients import Heard, by_file, pcm, read, ws
from tests.gateway.inside import serving
from tests.gateway.process import GatewayProcess
from tests.serving import engines_at

MANY = 50


class Speaker:
    """A stream of /ws that has been said `data` and has shown some of it."""

    def __init__(self, connection: websockets.ClientConnection, first: str) -> None:
        self.connection = connection
        self._first = json.loads(first)

    @classmethod
    async def after(cls, url: str, data: bytes) -> Speaker:
        connection = await websockets.connect(url, open_timeout=60)
        await connection.send(data)
        return cls(connection, str(await asyncio.wait_for(connection.recv(), 60)))

    async def end(self, data: bytes = b"") -> Heard:
        await self.connection.send(data)
        await self.connection.send("END")
        return await self.hear()

    async def hear(self) -> Heard:
        """All of it, what came at first too: on a busy machine that may be a final."""
        heard = await read(self.connection)
        heard.messages.insert(0, self._first)
        return heard


async def test_sigterm_under_fifty_streams_gives_each_its_final_text() -> None:
    data = pcm("music")
    with GatewayProcess("--drain-seconds", "600") as gateway:
        speakers = await asyncio.gather(*(Speaker.after(f"{gateway.ws}/ws", data) for _ in range(MANY)))
        gateway.terminate()
        async with asyncio.timeout(30):
            while (await asyncio.to_thread(gateway.health))["status"] != "draining":
                pass
        late = await ws(f"{gateway.ws}/ws", data)
        assert late.code == 1013 and "shutting down" in late.reason
        # One ends by itself meanwhile, as if nothing were.
        own = await speakers[0].end()
        assert (own.code, own.text) == (1000, TEXTS["music"])
        # Told again, the gateway waits no longer for the others.
        gateway.terminate()
        heard: list[Heard] = await asyncio.gather(*(speaker.hear() for speaker in speakers[1:]))
        assert await asyncio.to_thread(gateway.wait) == 0
        assert "Traceback" not in gateway.log()
    for one in heard:
        assert (one.code, one.text, one.messages[-1]) == (1012, TEXTS["music"], "END")


async def test_without_streams_it_ends_at_once_with_ctrl_c() -> None:
    with GatewayProcess("--drain-seconds", "600") as gateway:
        gateway.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(gateway.wait) == 0


async def test_text_is_whole_when_the_engine_is_killed_in_the_middle() -> None:
    data = pcm("music") + bytes(32_000) + pcm("monday") + bytes(32_000)
    with GatewayProcess() as gateway:
        speaker = await Speaker.after(f"{gateway.ws}/ws", data[: len(data) // 3])
        for engine in engines_at(gateway.place):
            engine.kill()
        heard = await speaker.end(data[len(data) // 3 :])
    assert (heard.code, heard.text) == (1000, by_file(data))


async def test_a_connection_may_last_only_so_long(engine: Engine) -> None:
    app = create_app(Settings(limits=Limits(session_seconds=0.5)), engine)
    async with serving(app) as url:
        async with websockets.connect(f"{url}/ws") as connection:
            heard = await read(connection)
    assert heard.code == 1008 and "0.5 s" in heard.reason


def deaf(host: str, port: int, path: str) -> socket.socket:
    """A WebSocket from which nobody reads more than the handshake."""
    line = socket.create_connection((host, port))
    line.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert line.recv(4096).startswith(b"HTTP/1.1 101")
    return line


class Chatty(WsDialect):
    """Says far more than the buffers of a connection hold."""

    def event(self, event: object) -> Messages:
        return ("x" * (1 << 20),) * 32


async def test_who_does_not_read_is_cut_and_frees_the_place(engine: Engine) -> None:
    app = create_app(Settings(limits=Limits(stalled_seconds=0.5, idle_seconds=600)), engine)
    service: Service = app.state.service
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @app.websocket("/chatty")
    async def chatty(accepted: WebSocket) -> None:
        await accepted.accept()
        await converse(accepted, Chatty(StreamOptions()), service, "who")
        ended.set_result(None)

    async with serving(app) as url:
        host, port = url.removeprefix("ws://").split(":")
        with contextlib.closing(await asyncio.to_thread(deaf, host, int(port), "/chatty")) as line:
            data = pcm("music")
            # A binary frame, masked with zeros.
            line.sendall(b"\x82\xff" + len(data).to_bytes(8, "big") + bytes(4) + data)
            await asyncio.wait_for(ended, 60)
            assert service.house.open == 0
            assert service.metrics.registry.get_sample_value("nemostream_refusals_total", {"reason": "stalled"}) == 1

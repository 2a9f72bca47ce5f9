"""Who is let in, and what becomes of who misbehaves. Nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
import websockets

from nemostream_agent.gateway.errors import Refusal
from nemostream_agent.gateway.limits import House
from nemostream_agent.gateway.settings import Limits
from tests.clips import TEXTS
from tests.gateway.clients import Heard, pcm, read, ws
from tests.gateway.process import GatewayProcess


@pytest.fixture(scope="module")
def small() -> Iterator[GatewayProcess]:
    """Two streams, short patience."""
    options = ("--max-streams", "2", "--soft-streams", "1", "--message-kb", "64", "--idle-seconds", "4")
    with GatewayProcess(*options) as running:
        yield running


def test_the_house_counts_in_all_and_for_each_client() -> None:
    house = House(Limits(soft=2, hard=3, per_client=2))
    with house.enter("a"), house.enter("a"):
        assert house.crowded
        with pytest.raises(Refusal) as own:
            house.check("a")
        assert (own.value.status, own.value.close) == (429, 1013)
        with house.enter("b"), pytest.raises(Refusal) as full:
            house.check("c")
        assert (full.value.status, full.value.close, full.value.headers) == (503, 1013, {"Retry-After": "1"})
    assert house.open == 0 and not house.crowded
    house.draining = True
    with pytest.raises(Refusal):
        house.check("a")


async def until_open(gateway: GatewayProcess, streams: int) -> None:
    """What a connection held is given back a moment after its close was heard here."""
    async with asyncio.timeout(30):
        while (await asyncio.to_thread(gateway.health))["active_streams"] != streams:
            pass


async def test_one_too_many_is_refused_with_1013_and_the_others_go_on(small: GatewayProcess) -> None:
    data = pcm("music")
    async with websockets.connect(f"{small.ws}/ws") as first, websockets.connect(f"{small.ws}/ws") as second:
        for socket in (first, second):
            await socket.send(data[: len(data) // 2])
            json.loads(await socket.recv())  # the stream is open: it has text
        before = small.metric("nemostream_refusals_total")
        for path in ("/ws", "/"):
            third = await ws(small.ws + path, b"")
            assert third.code == 1013 and "2 streams" in third.reason
        assert small.health()["active_streams"] == 2
        assert small.health()["capacity"]["crowded"] is True  # type: ignore[index]
        assert small.metric("nemostream_refusals_total") == before + 2
        for socket in (first, second):
            await socket.send(data[len(data) // 2 :])
            await socket.send("END")
            assert (await read(socket)).text == TEXTS["music"]
    again = await ws(f"{small.ws}/ws", data)
    assert again.text == TEXTS["music"]


async def test_who_says_nothing_is_told_and_cut(small: GatewayProcess) -> None:
    async def silent(path: str) -> Heard:
        async with websockets.connect(small.ws + path) as socket:
            return await read(socket)

    # With a stream, and before one has begun.
    for heard in await asyncio.gather(silent("/ws"), silent("/")):
        assert heard.code == 1008 and "4 s" in heard.reason


async def test_a_message_that_is_too_large_ends_its_own_stream_only(small: GatewayProcess) -> None:
    async with websockets.connect(f"{small.ws}/ws") as other:
        await other.send(pcm("monday")[:30_000])
        for message in (bytes(65 << 10), bytes(100 << 20)):
            async with websockets.connect(f"{small.ws}/ws", max_size=None) as socket:
                try:
                    await socket.send(message)
                except websockets.ConnectionClosed:
                    pass
                assert (await read(socket)).code == 1009
            await until_open(small, 1)
        await other.send(pcm("monday")[30_000:])
        await other.send("END")
        assert (await read(other)).text == TEXTS["monday"]


async def test_text_where_audio_belongs_half_a_sample_and_nothing_at_all(small: GatewayProcess) -> None:
    async with websockets.connect(f"{small.ws}/ws") as socket:
        await socket.send("hello")
        heard = await read(socket)
    assert heard.code == 1007 and heard.messages[0]["error"]
    assert (await ws(f"{small.ws}/ws", pcm("tonight") + b"\x01")).text == TEXTS["tonight"]
    nothing = await ws(f"{small.ws}/ws", b"")
    assert (nothing.code, nothing.messages) == (1000, ["END"])
    noise = await ws(f"{small.ws}/ws?encoding=float32", b"\xff" * 6400)
    assert noise.code == 1007 and "NaN" in noise.reason


async def test_clients_that_vanish_leave_nothing_behind(small: GatewayProcess) -> None:
    async def vanish() -> None:
        socket = await websockets.connect(f"{small.ws}/ws")
        await socket.send(pcm("music")[:40_000])
        json.loads(await socket.recv())
        socket.transport.abort()

    for _ in range(10):
        await asyncio.gather(vanish(), vanish())
        await until_open(small, 0)
    assert (await ws(f"{small.ws}/ws", pcm("refund"))).text == TEXTS["refund"]

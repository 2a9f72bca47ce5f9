"""Two hundred sessions that end in every way: afterwards the gateway holds what it held before."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import httpx2 as httpx
import psutil
import pytest

from bench.whip.client import SDP, WhipClient, new_offer
from bench.whip.inbox import WAIT_SECONDS
from bench.whip.viewer import Viewer
from tests.gateway.process import GatewayProcess
from tests.whip.talks import LOCAL, talk, text

TIMERS = ("--setup-seconds", "8", "--idle-seconds", "9")
CYCLES = 50
"""Of each kind."""
AT_ONCE = 5
REST_SECONDS = 60.0
FILES = 3
"""That may be open for another reason: the connections of /health, and of what is asked here."""
POOL = 40
"""Threads on which FastAPI runs what may block; they stay a while. One left by each session would be far more."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    """Short of patience."""
    with GatewayProcess(*LOCAL, *TIMERS) as running:
        yield running
        assert "Traceback" not in running.log()


@dataclass(frozen=True, slots=True)
class Held:
    """By the gateway's process, and of the engine for it."""

    files: int
    threads: int
    streams: int

    @classmethod
    def by(cls, gateway: GatewayProcess) -> Held:
        process, health = psutil.Process(gateway.process.pid), gateway.health()
        streams = health["active_streams"] + health["engine"]["streams"]  # type: ignore[operator, index]
        return cls(process.num_fds(), process.num_threads(), streams)

    def is_like(self, before: Held) -> bool:
        files, threads = self.files - before.files, self.threads - before.threads
        return files <= FILES and threads <= POOL and self.streams == before.streams


async def at_rest(gateway: GatewayProcess, like: Held) -> Held:
    """What it holds once that is no more than before, or after REST_SECONDS."""
    deadline = time.monotonic() + REST_SECONDS
    while not (held := await asyncio.to_thread(Held.by, gateway)).is_like(like) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return held


async def deleted(http: httpx.AsyncClient, number: int) -> None:
    """Every other one before it is connected."""
    async with WhipClient(http, "deleted", talk("music")) as client:
        if number % 2:
            await client.connected()
        assert (await http.delete(client.location)).status_code == 200


async def hung_up(http: httpx.AsyncClient, number: int) -> None:
    """The peer connection is closed and nothing is said over HTTP; every other one before it is made."""
    async with WhipClient(http, "hung-up", talk("music")) as client:
        if number % 2:
            await client.connected()


async def vanished(http: httpx.AsyncClient, _: int) -> None:
    """Its sockets are closed in the middle of a word, and it says nothing more to anybody."""
    async with WhipClient(http, "vanished", talk("music")) as client:
        await client.connected()
        client.vanish()


async def never_connected(http: httpx.AsyncClient, _: int) -> None:
    """POST, and nothing else."""
    assert (await http.post("/whip/never", content=await new_offer(), headers=SDP)).status_code == 201


Cycle = Callable[[httpx.AsyncClient, int], Awaitable[None]]


async def in_turns(gateway: GatewayProcess, cycle: Cycle, count: int) -> None:
    async with httpx.AsyncClient(base_url=gateway.http, timeout=WAIT_SECONDS) as http:
        for begin in range(0, count, AT_ONCE):
            await asyncio.gather(*(cycle(http, number) for number in range(begin, begin + AT_ONCE)))


async def read_and_left(gateway: GatewayProcess, count: int) -> None:
    async with httpx.AsyncClient(base_url=gateway.http, timeout=WAIT_SECONDS) as http:
        for _ in range(count):
            async with Viewer(http, "viewed"):
                pass


async def test_after_two_hundred_sessions_nothing_is_left(gateway: GatewayProcess) -> None:
    # What is made once is there from then on.
    await in_turns(gateway, deleted, AT_ONCE)
    await read_and_left(gateway, 1)
    while (before := await asyncio.to_thread(Held.by, gateway)).streams:
        pass

    async with (
        httpx.AsyncClient(base_url=gateway.http, timeout=REST_SECONDS) as http,
        Viewer(http, "never") as never,
        Viewer(http, "vanished") as gone,
    ):
        for cycle in (never_connected, vanished, deleted, hung_up):
            await in_turns(gateway, cycle, CYCLES)
        await read_and_left(gateway, CYCLES)
        await still_hears(gateway)
        for viewer, code in ((never, "not_connected"), (gone, "idle")):
            inbox = viewer.inbox
            await inbox.until(lambda inbox=inbox: len(inbox.of("left")) == CYCLES, REST_SECONDS)
            assert Counter(failed["code"] for failed in inbox.of("failed")) == {code: CYCLES}

    after = await at_rest(gateway, before)
    assert after.is_like(before), (before, after)
    check_log(gateway)


def check_log(gateway: GatewayProcess) -> None:
    """Every session has its line."""
    lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith("{")]
    counts = Counter(line["room"] for line in lines if line["message"] == "stream")
    each = dict.fromkeys(("hung-up", "never", "vanished"), CYCLES)
    assert counts == {"deleted": AT_ONCE + CYCLES, **each, "still": 1}


async def still_hears(gateway: GatewayProcess) -> None:
    """Those who speak while the others' timers run."""
    async with httpx.AsyncClient(base_url=gateway.http, timeout=WAIT_SECONDS) as http:
        async with WhipClient(http, "still", talk("music")) as client:
            await client.said()
            await client.delete()
    assert client.inbox.text() == text("music")

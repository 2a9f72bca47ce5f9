"""Two hundred sessions that end in every way: afterwards the gateway holds what it held before."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
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
from tests.conftest import ROOT
from tests.gateway.process import GatewayProcess
from tests.whip.talks import LOCAL, talk, text

TIMERS = ("--setup-seconds", "10", "--idle-seconds", "5")
CYCLES = 50
"""Of each kind."""
AT_ONCE = 5
REST_SECONDS = 30.0
FILES = 3
"""That may be open for another reason: the connections of /health, and of what is asked here."""
POOL = 40
"""Threads on which FastAPI runs what may block; they stay a while. One left by each session would be far more."""

VANISHING = """
import asyncio, sys, httpx2 as httpx
from bench.whip.client import WhipClient
from tests.whip.talks import talk

async def main(url, count):
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        clients = [WhipClient(http, "vanish", talk("music")) for _ in range(count)]
        for some in zip(*[iter(clients)] * 5):
            await asyncio.gather(*(client.open() for client in some))
            await asyncio.gather(*(client.connected() for client in some))
        print("connected", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


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


async def never_connected(http: httpx.AsyncClient, _: int) -> None:
    """POST, and nothing else."""
    assert (await http.post("/whip/never", content=await new_offer(), headers=SDP)).status_code == 201


Cycle = Callable[[httpx.AsyncClient, int], Awaitable[None]]


async def in_turns(gateway: GatewayProcess, cycle: Cycle, count: int) -> None:
    async with httpx.AsyncClient(base_url=gateway.http, timeout=WAIT_SECONDS) as http:
        for begin in range(0, count, AT_ONCE):
            await asyncio.gather(*(cycle(http, number) for number in range(begin, begin + AT_ONCE)))


def vanishing(gateway: GatewayProcess, count: int) -> None:
    """All of them are connected when their process is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", VANISHING, gateway.http, str(count)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        process.send_signal(signal.SIGKILL)


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

    vanished = asyncio.create_task(asyncio.to_thread(vanishing, gateway, CYCLES))
    for cycle in (never_connected, deleted, hung_up):
        await in_turns(gateway, cycle, CYCLES)
    await read_and_left(gateway, CYCLES)
    await vanished
    await still_hears(gateway)

    after = await at_rest(gateway, before)
    assert after.is_like(before), (before, after)
    check_log(gateway)


def check_log(gateway: GatewayProcess) -> None:
    """Every session has its line."""
    lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith("{")]
    counts = Counter(line["room"] for line in lines if line["message"] == "stream")
    assert counts == {"deleted": AT_ONCE + CYCLES, **dict.fromkeys(("hung-up", "never", "vanish"), CYCLES), "still": 1}


async def still_hears(gateway: GatewayProcess) -> None:
    """Those who speak while the others' timers run."""
    async with httpx.AsyncClient(base_url=gateway.http, timeout=WAIT_SECONDS) as http:
        async with WhipClient(http, "still", talk("music")) as client:
            await client.said()
            await client.delete()
    assert client.inbox.text() == text("music")

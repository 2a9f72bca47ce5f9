"""`make demo`, as its command runs it: to its end, and stopped in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psutil

from nemostream_agent.livekit_server import find_or_build
from tests.rooms.captioned import TIMEOUT

COMMAND = (sys.executable, "-u", "-m", "nemostream_agent.demo")


async def start(environment: dict[str, str]) -> asyncio.subprocess.Process:
    find_or_build()
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A shell without job control lets what it runs in the background ignore Ctrl-C, these tests for instance.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


async def test_it_shows_interim_and_final_captions_and_exits_0(own_engine: dict[str, str]) -> None:
    demo = await start(own_engine)
    out, errors = await asyncio.wait_for(demo.communicate(), 2 * TIMEOUT)
    text = out.decode()
    assert demo.returncode == 0, errors.decode()
    assert "| interim |" in text and "| final " in text
    assert "do you open" in text.split("heard:")[1]


async def test_ctrl_c_stops_everything_that_it_started(own_engine: dict[str, str]) -> None:
    demo = await start(own_engine)
    assert demo.stdout is not None
    stdout = demo.stdout

    async def first_caption() -> None:
        while b"interim" not in await stdout.readline():
            pass

    await asyncio.wait_for(first_caption(), 2 * TIMEOUT)
    demo.send_signal(signal.SIGSTOP)  # else it may come to its end while its processes are counted
    family = psutil.Process(demo.pid).children(recursive=True)
    assert {"livekit-server"} <= {process.name() for process in family}
    demo.send_signal(signal.SIGINT)
    demo.send_signal(signal.SIGCONT)
    await asyncio.wait_for(demo.communicate(), TIMEOUT)
    assert demo.returncode == 130
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, timeout=10)
    assert not alive

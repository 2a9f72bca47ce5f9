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
    )


async def test_it_shows_interim_and_final_captions_and_exits_0(own_engine: dict[str, str]) -> None:
    demo = await start(own_engine)
    out, errors = await asyncio.wait_for(demo.communicate(), 2 * TIMEOUT)
    text = out.decode()
    assert demo.returncode == 0, errors.decode()
    assert "| interim |" in text and "| final " in text
    assert "do you open" in text.split("heard:")[1]


async def test_ctrl_c_stops_everything_that_it_started(own_engine: dict[str, str]) -> None:
    for _ in range(3):
        demo = await start(own_engine)
        assert demo.stdout is not None
        await asyncio.wait_for(_first_caption(demo.stdout), 2 * TIMEOUT)
        demo.send_signal(signal.SIGSTOP)  # else it may come to its end while its processes are counted
        family = psutil.Process(demo.pid).children(recursive=True)
        assert {"livekit-server"} <= {process.name() for process in family}
        demo.send_signal(signal.SIGINT)
        demo.send_signal(signal.SIGCONT)
        out, _ = await asyncio.wait_for(demo.communicate(), TIMEOUT)
        _, alive = await asyncio.to_thread(psutil.wait_procs, family, timeout=10)
        assert not alive
        if b"the final caption was read" not in out:  # else it was over: on a busy machine the first caption is late
            break
    assert demo.returncode == 130


async def _first_caption(stdout: asyncio.StreamReader) -> None:
    while b"interim" not in await stdout.readline():
        pass

"""`make demo`, as its command runs it: to its end without a screen, and stopped in the middle, with one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest

from nemostream_agent.livekit_server import find_or_build
from tests.conftest import ROOT
from tests.rooms.captioned import TIMEOUT

COMMAND = (sys.executable, "-u", "-m", "nemostream_agent.demo")


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """What `make` does before."""
    find_or_build()
    subprocess.run([sys.executable, "hatch_build.py"], cwd=ROOT, check=True)


@asynccontextmanager
async def demo(*options: str, environment: dict[str, str] | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """In a process group of its own, as a shell runs it."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *options,
        env={**os.environ, **(environment or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        # A shell without job control lets what it runs in the background ignore Ctrl-C, these tests for instance.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def said(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """Standard output and standard error of one that ends by itself."""
    out, errors = await asyncio.wait_for(process.communicate(), 3 * TIMEOUT)
    return out.decode(), errors.decode()


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    """The first line of standard output that has it."""

    async def search() -> str:
        assert process.stdout is not None
        async for line in process.stdout:
            if text in line.decode():
                return line.decode().strip()
        raise AssertionError(f"the output ended without {text!r}")

    return await asyncio.wait_for(search(), 2 * TIMEOUT)


def family(process: asyncio.subprocess.Process) -> list[psutil.Process]:
    """All that it has started, and all that these have."""
    return psutil.Process(process.pid).children(recursive=True)


async def press_ctrl_c(process: asyncio.subprocess.Process) -> None:
    """As a terminal does: everyone in the group gets it."""
    os.killpg(process.pid, signal.SIGINT)
    await asyncio.wait_for(process.communicate(), TIMEOUT)


async def none_lives(processes: list[psutil.Process]) -> bool:
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=10)
    return not alive


async def test_without_a_screen_it_shows_the_captions_of_a_clip_in_both_pages_and_exits_0() -> None:
    async with demo("--headless", "--port", "0") as process:
        out, errors = await said(process)
    assert process.returncode == 0, errors
    solo, room = out.split("/room/")
    for page in solo, room:
        assert "Anna | interim |" in page and "Anna | final " in page
        assert "do you open" in page.split("heard:")[1]
        assert "s after the last word was spoken" in page


async def test_ctrl_c_ends_it_and_all_that_it_started() -> None:
    async with demo("--no-browser", "--port", "0") as process:
        address = await line_with(process, "http://")
        async with httpx.AsyncClient() as client:
            assert "text/html" in (await client.get(f"{address}/solo/")).headers["content-type"]
            assert (await client.get(f"{address}/config.json")).json()["livekit"] is True
        everyone = family(process)
        assert "livekit-server" in {one.name() for one in everyone}
        assert len(everyone) >= 4  # the server, the agent, the gateway, the engine
        await press_ctrl_c(process)
        assert process.returncode == 0
        assert await none_lives(everyone)


async def test_ctrl_c_while_it_speaks_ends_the_browser_too() -> None:
    async with demo("--headless", "--no-livekit", "--port", "0") as process:
        await line_with(process, "interim")
        everyone = family(process)
        assert any("chrom" in one.name() for one in everyone)
        await press_ctrl_c(process)
        assert process.returncode == 130
        assert await none_lives(everyone)


async def test_ctrl_c_while_it_starts_leaves_nothing() -> None:
    async with demo("--no-browser", "--port", "0") as process:
        assert process.stderr is not None
        await asyncio.wait_for(process.stderr.readline(), TIMEOUT)
        everyone = family(process)
        await press_ctrl_c(process)
        assert process.returncode == 130
        assert await none_lives(everyone)


async def test_it_ends_with_a_sentence_when_its_gateway_does() -> None:
    async with demo("--no-browser", "--no-livekit", "--port", "0") as process:
        await line_with(process, "http://")
        everyone = family(process)
        next(one for one in everyone if "gateway" in one.cmdline()).kill()
        _, errors = await said(process)
        assert process.returncode == 1 and "The gateway has ended" in errors and "Traceback" not in errors
        assert await none_lives(everyone)


async def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with demo("--no-browser", "--no-livekit", "--port", str(taken.getsockname()[1])) as process:
            _, errors = await said(process)
    assert process.returncode == 1
    assert "address already in use" in errors and "Traceback" not in errors


async def test_without_chromium_it_names_the_package(tmp_path: Path) -> None:
    async with demo("--headless", environment={"PATH": str(tmp_path)}) as process:
        _, errors = await said(process)
    assert process.returncode == 1
    assert errors == "nemostream-agent demo: Chromium is missing: apt install chromium.\n"

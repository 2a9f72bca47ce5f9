"""Services: all that the pages need, on this machine: an engine, the gateway, LiveKit and its captions agent."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from nemostream.probe import probe
from nemostream.rendezvous import Place

from .. import livekit_server
from ..agent_process import AgentError, AgentProcess
from ..livekit_server import LiveKitServer, ServerError
from . import DemoError
from .program import Program

PORT = 8000
BANNER = "listening on "
READY_SECONDS = 120.0
"""In which each of them must be ready; a machine that has nothing else to do needs five in all."""
DRAIN_SECONDS = "1"
"""That a page may go on speaking after Ctrl-C."""


class Services:
    """`async with Services(port, livekit) as services: services.address`; all of them have ended when it is left.

    Attributes:
        address: of the gateway's pages.
        livekit: the server of rooms; None: there are none.

    Args:
        port: of the gateway; None: 8000, or any other where that is taken.
        livekit: with LiveKit's rooms, for which a server is built if there is none; None: if there is one.
        loopback: media goes over 127.0.0.1 only.
        options: more of the gateway's.

    Raises:
        DemoError: one of them does not start.
    """

    def __init__(
        self,
        port: int | None = None,
        livekit: bool | None = None,
        loopback: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        self._port = port
        self._wanted = livekit
        self._loopback = loopback
        self._options = options
        self._stack = AsyncExitStack()
        self._environment: dict[str, str] = {}
        self._programs: list[Program] = []
        self.address = ""
        self.livekit: LiveKitServer | None = None

    async def __aenter__(self) -> Services:
        try:
            await self._start()
        except BaseException as error:
            await self._stack.aclose()
            if isinstance(error, ServerError | AgentError):
                raise DemoError(str(error)) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ended(self) -> DemoError:
        """Wait until one of them ends, which none should; what is to be said of it."""
        waiting = {asyncio.create_task(program.wait()): program for program in self._programs}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return waiting[done.pop()].ended()

    async def _start(self) -> None:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nemostream-"))
        # An engine of its own, so that nothing is left of the demo when it is over.
        place = Place(Path(folder) / "engine.sock")
        self._environment["NEMOSTREAM_SOCKET"] = str(place.socket)
        server = await self._find_livekit()
        _say("starting the engine")
        await self._start_engine(place)
        _say("starting the gateway" + (", livekit-server and the captions agent" if server else ""))
        if server is not None:
            self.livekit = running = self._stack.enter_context(LiveKitServer(server))
            self._environment |= running.environment
            agent = AgentProcess(running, environment=self._environment)
            await _all(self._start_gateway(), self._stack.enter_async_context(agent))
        else:
            await self._start_gateway()

    async def _find_livekit(self) -> Path | None:
        if self._wanted is False:
            return None
        found = livekit_server.find()
        return await asyncio.to_thread(livekit_server.find_or_build) if found is None and self._wanted else found

    async def _run(self, program: Program) -> None:
        self._stack.push_async_callback(program.stop)
        await program.start()
        self._programs.append(program)

    async def _start_engine(self, place: Place) -> None:
        engine = Program("The engine", ["nemostream", "serve", "--socket", str(place.socket)])
        await self._run(engine)
        await _until(lambda: probe(place) is not None, engine)

    async def _start_gateway(self) -> None:
        options = ["--port", str(_free_port() if self._port is None else self._port), "--drain-seconds", DRAIN_SECONDS]
        if self._loopback:
            options += ["--ice-address", "127.0.0.1"]
        options += self._options
        gateway = Program("The gateway", ["nemostream_agent", "gateway", *options], self._environment)
        await self._run(gateway)
        banner = await asyncio.wait_for(gateway.line(), READY_SECONDS)
        if not banner.startswith(BANNER):
            await gateway.wait()
            raise gateway.ended()
        self.address = banner.removeprefix(BANNER).strip()
        await _until(lambda: _healthy(self.address), gateway)


async def _all(*starts: Coroutine[Any, Any, object]) -> None:
    """At once; where one fails the others are cancelled and have ended when its error is raised."""
    tasks = [asyncio.create_task(start) for start in starts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _until(ready: Callable[[], bool], program: Program) -> None:
    """Ask in a thread, again and again.

    Raises:
        DemoError: the program ends, or takes too long.
    """
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not await asyncio.to_thread(ready):
                program.check()
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DemoError(f"{program.name} is not ready after {READY_SECONDS:g} s.") from None


def _healthy(address: str) -> bool:
    """Whether /health says ok: the model is loaded."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
    except OSError:
        return False


def _free_port() -> int:
    """8000, or 0 (any) where that is taken."""
    with socket.socket() as probing:
        probing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probing.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
    return PORT


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

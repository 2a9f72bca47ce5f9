"""One engine for all processes of a machine: the protocol over a Unix socket (`nemostream serve`).

await Server(engine, place).run()      # until `stop`, or until it was idle for `idle_exit` seconds

asyncio on this thread, the engine on its own. A client that stops reading or sends garbage loses its connection, and
its rows are free; one that floods is held back; the others notice nothing. Stopping fails no stream: clients take
theirs, from the last checkpoint, to whichever engine comes next.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from nemostream import wire
from nemostream.engine import Engine
from nemostream.errors import EngineFull, EngineLost, NemostreamError, VersionMismatch, WireError
from nemostream.frames import Frames
from nemostream.guest import MAX_LOADS, Guest
from nemostream.rendezvous import Place

logger = logging.getLogger("nemostream")

HELLO_SECONDS = 5.0
"""A client says who it is within this time."""
MAX_HELLO = 1 << 16
"""Bytes of the frame in which it does."""
MAX_CLIENTS = 512
"""Connections at once; a process needs one."""
WATCH_SECONDS = 1.0
"""Between two looks at the engine and the clients. What follows is counted in looks, not by the clock: a process that
was stopped and goes on must not take the others for dead."""
STEP_SECONDS = 10.0
"""A step that takes longer hangs: the process ends, and clients go on in another one."""
SPAWNED_IDLE_EXIT = float(os.environ.get("NEMOSTREAM_IDLE_EXIT", "60"))
"""Seconds without a client after which an engine that a client started ends."""
HUNG = 70
"""Exit status of a process whose step hung."""


class Server:
    """The socket of an engine.

    Args:
        spawned: a client started this process, and may end it when it does not answer.
        idle_exit: seconds without a client after which `run` returns; None: never.
    """

    def __init__(self, engine: Engine, place: Place, *, spawned: bool = False, idle_exit: float | None = None) -> None:
        self._engine = engine
        self._place = place
        self._spawned = spawned
        self._idle_exit = idle_exit
        self._clients: set[Guest] = set()
        self._loads = threading.BoundedSemaphore(MAX_LOADS)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop`, or until nobody has come for a while. Closes the engine.

        Raises:
            EngineTaken: another engine serves this place.
            EngineLost: the socket's folder cannot be used.
        """
        with self._place.hold(self._spawned):
            try:
                server = await asyncio.get_running_loop().create_unix_server(
                    lambda: Frames(self._serve, MAX_HELLO), self._place.socket, backlog=1024
                )
            except OSError as error:
                raise EngineLost(f"nobody can listen at {self._place.socket}: {error.strerror}") from error
            logger.info("serving at %s", self._place.socket)
            watch = asyncio.create_task(self._watch())
            try:
                await self._stop.wait()
            finally:
                self._stop.set()
                server.close()
                for client in list(self._clients):
                    client.leave()
                await asyncio.to_thread(self._engine.close)
                watch.cancel()  # not before: closing waits for a step, which may hang

    def stop(self) -> None:
        """End `run`; on its loop."""
        self._stop.set()

    async def _watch(self) -> None:
        step: float | None = None
        stuck = idle = 0.0
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            before, step = step, self._engine.busy_since
            stuck = stuck + WATCH_SECONDS if step is not None and step == before else 0.0
            if stuck >= STEP_SECONDS:
                logger.critical("a step has taken more than %g s; the process ends", STEP_SECONDS)
                os._exit(HUNG)
            for client in list(self._clients):
                client.look(WATCH_SECONDS)
            idle = 0.0 if self._clients else idle + WATCH_SECONDS
            if self._idle_exit is not None and idle >= self._idle_exit and not self._stop.is_set():
                logger.info("nobody has come for %g s; the process ends", self._idle_exit)
                self._stop.set()
            if self._spawned:
                self._place.trim_log()

    async def _serve(self, frames: Frames) -> None:
        client = Guest(self._engine, frames.transport, self._loads)
        self._clients.add(client)
        try:
            await self._converse(client, frames)
        except NemostreamError as error:
            logger.warning("a client (process %d) is sent away: %s", client.pid, error)
            client.write(wire.Goodbye(type(error).__name__, str(error)))
        except (EOFError, OSError):
            pass  # it is gone
        except Exception:
            logger.exception("a client (process %d) is lost to a defect", client.pid)
        finally:
            self._clients.discard(client)
            client.leave()

    async def _converse(self, client: Guest, frames: Frames) -> None:
        await self._greet(client, frames)
        frames.limit = wire.MAX_FRAME
        while not self._stop.is_set():
            body = await frames.read()
            frame = wire.to_engine(body)
            client.silent = 0.0
            if isinstance(frame, wire.Messages):
                await client.send(frame, len(body))
            elif isinstance(frame, wire.Call):
                client.answer(frame)
            else:
                raise WireError("it says hello again")

    async def _greet(self, client: Guest, frames: Frames) -> None:
        if self._stop.is_set() or len(self._clients) > MAX_CLIENTS:
            raise EngineFull("the engine ends" if self._stop.is_set() else f"there are {MAX_CLIENTS} clients", 1.0)
        if client.user != os.getuid():  # whatever the folder's mode has become
            raise WireError("it belongs to another user")
        try:
            hello = wire.to_engine(await asyncio.wait_for(frames.read(), HELLO_SECONDS))
        except TimeoutError:
            raise WireError(f"it did not say hello within {HELLO_SECONDS:g} s") from None
        if not isinstance(hello, wire.Hello):
            raise WireError("it did not say hello")
        if hello.version != wire.VERSION:
            raise VersionMismatch(
                f"the engine speaks protocol {wire.VERSION} (version {wire.package()}), the client {hello.version} "
                f"(version {wire.one_line(hello.package)}); install the same version for both and restart the engine"
            )
        client.write(wire.Welcome(wire.VERSION, wire.package(), os.getpid(), self._spawned))
        client.arrive()

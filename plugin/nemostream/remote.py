"""The machine's engine, in a process of its own: the same calls as `Engine`, over a Unix socket.

engine = RemoteEngine()                            # found at its place, or started there, when it is first needed
connection = engine.connect(deliver=print)
connection.send(Open(stream=1))

One thread serves all owners in this process. If the engine dies, hangs or is replaced, the streams go on in the next
one (ledger.py): their owners see a pause.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from nemostream import packing, wire
from nemostream.errors import EngineLost, NemostreamError, StreamClosed
from nemostream.figures import Description
from nemostream.link import Link
from nemostream.protocol import Event, Message, Push
from nemostream.rendezvous import Place
from nemostream.switchboard import Switchboard

logger = logging.getLogger("nemostream")

Deliver = Callable[[Sequence[Event]], None]
TICK = 0.01
"""Seconds that audio waits for more of it, to share a frame. Anything else goes at once, and takes the audio along."""
GIVE_UP = 30.0
"""Seconds without an engine after which streams fail; what was said meanwhile is kept (ledger.LIMIT)."""
MAX_PUSH = 1 << 20
"""Samples. A longer push is cut, so that a frame has a bound (packing.FRAME_BYTES)."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The machine's engine; equal values share one link in a process (registry.py).

    Attributes:
        place: where; None: Place.default().
        spawn: start one if there is none.
        device: of one that is started (EngineConfig); None: NEMOSTREAM_DEVICE, else the CPU.
    """

    place: Place | None = None
    spawn: bool = True
    device: str | None = None


class RemoteConnection:
    """One owner of streams; its stream numbers are its own."""

    def __init__(self, engine: RemoteEngine, number: int) -> None:
        self._engine = engine
        self._number = number

    def send(self, *messages: Message) -> None:
        """Post messages, in order. Never blocks; safe from any thread."""
        self._engine._post([(self._number, part) for m in messages for part in _parts(m)])

    def close(self) -> None:
        """Close all its streams at once, without drain; nothing is delivered any more."""
        self._engine._post([(self._number, None)])


class RemoteEngine:
    """A link to the engine's process, made when the first stream is opened or a model is loaded."""

    def __init__(self, config: Shared | None = None) -> None:
        self.config = config or Shared()
        self._lock = threading.Lock()
        self._outbox: list[tuple[int, Message | None]] = []
        self._due_now = self._due_later = False
        self._deliver: dict[int, Deliver] = {}
        self._owners = itertools.count(1)
        self._call_numbers = itertools.count(1)
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # The rest belongs to the thread.
        self._board = Switchboard()
        self._calls: dict[int, tuple[wire.Call, Future[wire.Reply]]] = {}
        self._linked = False

    # --- on any thread ---

    def connect(self, deliver: Deliver) -> RemoteConnection:
        """A new owner. `deliver` gets its events on this engine's thread and must not block.

        Raises:
            StreamClosed: `close` was called.
        """
        number = next(self._owners)
        self._start()
        self._deliver[number] = deliver
        return RemoteConnection(self, number)

    def load(self, model: str | None = None) -> None:
        """Have the engine load a model now, so that no stream waits for it later. Blocks.

        Raises:
            EngineLost, VersionMismatch: there is no engine.
            UnknownModel, BundleError, CheckpointError: the model cannot be had.
        """
        self._call("load", model)

    def stats(self) -> dict[str, float]:
        """What the engine is doing (Engine.stats). Blocks. Raises EngineLost, VersionMismatch."""
        return self._call("stats").value

    def describe(self) -> Description:
        """What the engine is (Engine.describe). Blocks. Raises EngineLost, VersionMismatch."""
        description = self._call("describe").description
        assert description is not None
        return description

    def close(self) -> None:
        """Let go of the engine, which goes on for others. Streams that are open fail with StreamClosed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(self._serving.cancel)
            if thread is not threading.current_thread():
                thread.join()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def open_streams(self) -> int:
        """Streams of this process."""
        return len(self._board)

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise StreamClosed("this link to the engine is closed; make another one")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._needed = asyncio.Event()
                self._serving = self._loop.create_task(self._serve())
                self._thread = threading.Thread(target=self._run, name="nemostream-remote", daemon=True)
                self._thread.start()
            return self._loop

    def _post(self, items: Sequence[tuple[int, Message | None]]) -> None:
        now = any(not isinstance(m, Push) for _, m in items)
        with self._lock:
            if self._closed or self._loop is None:
                return
            self._outbox += items
            if now and not self._due_now:
                self._due_now = True
                self._loop.call_soon_threadsafe(self._flush)
            elif not self._due_now and not self._due_later:
                self._due_later = True
                self._loop.call_soon_threadsafe(self._loop.call_later, TICK, self._flush)

    def _call(self, name: str, model: str | None = None) -> wire.Reply:
        loop = self._start()
        answer: Future[wire.Reply] = Future()
        loop.call_soon_threadsafe(self._ask, wire.Call(next(self._call_numbers), name, model), answer)
        reply = answer.result()
        if reply.code:
            raise wire.error(reply.code, reply.message)
        return reply

    # --- on the thread ---

    def _run(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serving)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        """Hold a link while one is needed."""
        link = self._link = Link(self.config.place or Place.default(), self.config.spawn, self.config.device)
        try:
            while True:
                await self._needed.wait()
                try:
                    await asyncio.wait_for(link.open(), GIVE_UP)
                except TimeoutError:
                    self._fail_all(EngineLost(f"there has been no engine at {link.place.socket} for {GIVE_UP:g} s"))
                    continue
                except NemostreamError as error:
                    self._fail_all(error)
                    continue
                try:
                    await self._converse(link)
                except Exception as error:
                    # What it says cannot be understood: asking again would bring the same.
                    logger.error("the engine's answer cannot be taken: %r", error)
                    link.close()
                    self._fail_all(EngineLost(f"the engine's answer cannot be taken: {wire.one_line(error)}"))
        finally:
            link.close()
            self._fail_all(StreamClosed("the link to the engine was closed"))

    async def _converse(self, link: Link) -> None:
        self._linked = True
        self._send(self._board.replay())
        for call, _ in self._calls.values():
            link.write(call)
        while (frame := await link.read()) is not None:
            if isinstance(frame, wire.Events):
                self._hand_out(self._board.take(packing.read_events(frame)))
            elif isinstance(frame, wire.Reply) and frame.number in self._calls:
                self._calls.pop(frame.number)[1].set_result(frame)
        self._linked = False
        if not len(self._board) and not self._calls:
            self._needed.clear()

    def _flush(self) -> None:
        with self._lock:
            items, self._outbox = self._outbox, []
            self._due_now = self._due_later = False
        out: list[Message] = []
        for owner, message in items:
            if message is None:
                self._deliver.pop(owner, None)
                out += self._board.leave(owner)
                continue
            try:
                packing.check(message)
                ready, answers = self._board.send(owner, message)
            except NemostreamError as error:
                ready, answers = self._board.reject(owner, message.stream, error)
            out += ready
            self._hand_out(answers)
        if len(self._board):
            self._needed.set()
        if self._linked:
            self._send(out)

    def _send(self, messages: Sequence[Message]) -> None:
        for frame in packing.message_frames(messages):
            self._link.write(frame)

    def _ask(self, call: wire.Call, answer: Future[wire.Reply]) -> None:
        self._calls[call.number] = call, answer
        self._needed.set()
        if self._linked:
            self._link.write(call)

    def _hand_out(self, events: dict[int, list[Event]]) -> None:
        for owner, mine in events.items():
            deliver = self._deliver.get(owner)
            if deliver is None:
                continue
            try:
                deliver(mine)
            except Exception:
                logger.exception("an owner's deliver raised; its events are lost to it alone")

    def _fail_all(self, error: NemostreamError) -> None:
        self._linked = False
        self._needed.clear()
        self._hand_out(self._board.fail_all(error))
        calls, self._calls = self._calls, {}
        for _, answer in calls.values():
            answer.set_exception(error)


def _parts(message: Message) -> Sequence[Message]:
    if not isinstance(message, Push) or len(message.samples) <= MAX_PUSH:
        return (message,)
    starts = range(0, len(message.samples), MAX_PUSH)
    return [Push(message.stream, message.samples[s : s + MAX_PUSH], message.at_sample + s) for s in starts]

"""What all protocols share: the engine, who is let in, what is counted, and the way to an end.

service = Service(settings)
await service.start()                                  # the engine has loaded the model
async with service.open(options, who, "ws") as session: ...
await service.drain(); service.close()
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nemostream import registry
from nemostream.client import Client
from nemostream.errors import NemostreamError
from nemostream.protocol import SAMPLE_RATE, Event, Final, Priority
from nemostream.remote import Shared

from .container import ContainerDecoder
from .engine_watch import EngineWatch
from .errors import Refusal, bad_request, full, refusal
from .limits import House
from .metrics import Metrics
from .pcm import PcmDecoder
from .session import Decoder, Session
from .settings import Settings, StreamOptions
from .tracing import span

if TYPE_CHECKING:
    from nemostream.client import ClientStream
    from nemostream.figures import Description
    from nemostream.registry import AnyEngine

logger = logging.getLogger("nemostream.gateway")

OPEN_SECONDS = 10.0
DEFAULT = "default"
"""By this name a client may ask for what it gets if it names none."""
LOAD_SECONDS = 5.0
"""Between two tries to load the model at the start."""


class Service:
    """A gateway without its HTTP.

    Attributes:
        house: who is in.
        metrics: what is counted.
        ready: the model is loaded; until then nobody is let in.
        draining: set when the end has begun: streams may go on for `limits.drain_seconds`.
        ending: set when that is over: streams are to get their final text now.
        over: set when they have it.
        decoding: threads on which files are decoded.
    """

    def __init__(self, settings: Settings, engine: AnyEngine | None = None) -> None:
        """`engine`: another than the machine's, which the caller owns."""
        self.settings = settings
        self.house = House(settings.limits)
        self.metrics = Metrics(self.house)
        self.ready = False
        self.draining = asyncio.Event()
        self.ending = asyncio.Event()
        self.over = asyncio.Event()
        self.failure = ""
        self.decoding = ThreadPoolExecutor(os.cpu_count(), "gateway-decode")
        self._owned = engine
        self._engine: AnyEngine | None = None
        self._client: Client | None = None
        self._watch: EngineWatch | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self) -> None:
        """Connect to the machine's engine, or start it; its model is loaded on a thread of its own."""
        if self._owned is None:
            if self.settings.max_batch is not None:
                os.environ["NEMOSTREAM_MAX_BATCH"] = str(self.settings.max_batch)
            spawn = os.environ.get("NEMOSTREAM_SPAWN", "1") != "0"
            self._engine = registry.acquire(Shared(spawn=spawn, device=self.settings.device))
        else:
            self._engine = self._owned
        self._client = Client(self._engine)
        self._watch = EngineWatch(self._engine)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._load, args=(loop,), name="gateway-load", daemon=True).start()

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until it succeeds: /health says why it does not."""
        assert self._engine is not None
        while not self.draining.is_set():
            try:
                self._engine.load(self.model(None))
                loop.call_soon_threadsafe(self._loaded)
                return
            except RuntimeError:  # the loop is closed
                return
            except NemostreamError as error:
                self.failure = str(error)
                logger.error("the model cannot be loaded", extra={"error": str(error)})
                time.sleep(LOAD_SECONDS)

    def _loaded(self) -> None:
        self.ready = True
        assert self._watch is not None
        self._keeping = asyncio.create_task(self._watch.keep(self.model(None)), name="gateway.keep")

    async def look(self) -> Description | None:
        """What the engine says of itself, within a second; None: it does not answer. Starts none."""
        return await self._watch.look() if self._watch is not None and self.ready else None

    def model(self, asked: str | None) -> str | None:
        """The engine's name of a model that a client asked for.

        Raises:
            Refusal: clients may not have it. A name may be a path, so only those of the settings are passed on.
        """
        models = self.settings.models
        if asked in (None, DEFAULT):
            return models[0] if models else None
        if asked in models:
            return asked
        offered = ", ".join(models) or "the default one"
        raise bad_request(f"there is no model {asked[:80]!r} here; this gateway offers {offered}")

    def options(self, asked: StreamOptions) -> StreamOptions:
        """`asked`, with the gateway's own where nothing was asked for.

        Raises:
            Refusal: clients may not have that model.
        """
        own = self.settings.defaults
        names = ("chunk_ms", "language", "decoder", "endpointing")
        filled = {name: getattr(own, name) for name in names if getattr(asked, name) is None}
        return dataclasses.replace(
            asked, model=self.model(asked.model), keyterms=asked.keyterms or own.keyterms, **filled
        )

    @asynccontextmanager
    async def open(self, options: StreamOptions, who: str, protocol: str) -> AsyncIterator[Session]:
        """A live stream for the client `who`.

        Raises:
            Refusal: no place, or nobody can have what it asks for.
        """
        options = self.options(options)
        decoder: Decoder = ContainerDecoder()
        if options.encoding is not None:
            decoder = PcmDecoder(options.encoding, options.sample_rate, options.channels)
        async with self.admitted(who, protocol) as note:
            stream = await self.stream(options, "live")
            session = Session(stream, decoder, self.metrics)
            try:
                yield session
            finally:
                note(seconds=round(session.seconds, 3), finals=session.finals, **session.facts)
                session.drop()

    async def stream(self, options: StreamOptions, priority: Priority) -> ClientStream:
        """One of the engine's; `options` is complete."""
        assert self._client is not None, "start() first"
        try:
            return await self._client.open(
                model=options.model,
                chunk_ms=options.chunk_ms,
                language=options.language,
                decoder=options.decoder,
                endpointing=options.endpointing,
                keyterms=options.keyterms,
                priority=priority,
                timeout=OPEN_SECONDS,
            )
        except (NemostreamError, TimeoutError) as error:
            raise refusal(error) from error

    @asynccontextmanager
    async def admitted(self, who: str, protocol: str) -> AsyncIterator[Callable[..., None]]:
        """A place for a stream, which is counted, logged and traced. What is given holds facts for the log.

        Raises:
            Refusal: there is none.
        """
        facts: dict[str, object] = {"client": who, "protocol": protocol}
        began = time.monotonic()
        outcome = "ok"
        try:
            if not self.ready:
                raise full(self.failure or "the model is being loaded; try again soon")
            with self.house.enter(who), span("stream", protocol=protocol) as note:
                self._empty.clear()
                self.metrics.streams.labels(protocol).inc()
                try:
                    yield lambda **more: (facts.update(more), note(**more)) and None
                finally:
                    if self.house.open == 1:
                        self._empty.set()
        except Refusal as error:
            outcome = error.code
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            facts["outcome"] = outcome
            logger.info("stream", extra={**facts, "lasted": round(time.monotonic() - began, 3)})

    def heard(self, event: Event) -> None:
        """Finals stand in the log where that was asked for, and nothing else of what was said."""
        if self.settings.log_text and isinstance(event, Final) and event.text:
            seconds = event.start_sample / SAMPLE_RATE, event.end_sample / SAMPLE_RATE
            logger.info("final", extra={"text": event.text, "start": seconds[0], "end": seconds[1]})

    async def drain(self) -> None:
        """Nobody new is let in; come back when all are gone. After `drain_seconds`, or once `ending` is set, they are
        asked to end, which gives them their final text; who takes twice the time of a stalled client is left behind."""
        self.draining.set()
        self.house.draining = True
        limits = self.settings.limits
        if not await self._is_empty(limits.drain_seconds, self.ending):
            self.ending.set()
            await self._is_empty(2 * limits.stalled_seconds)
        self.over.set()

    async def _is_empty(self, seconds: float, or_this: asyncio.Event | None = None) -> bool:
        waits = [asyncio.ensure_future(e.wait()) for e in (self._empty, or_this) if e is not None]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._empty.is_set()

    def close(self) -> None:
        """Let go of the engine, which may go on for others."""
        self.decoding.shutdown(wait=False, cancel_futures=True)
        if self._keeping is not None:
            self._keeping.cancel()
        if self._client is not None:
            self._client.close()
        if self._owned is None and self._engine is not None:
            registry.release(self._engine, linger=0.0)  # type: ignore[arg-type]

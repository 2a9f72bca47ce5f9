"""A client of the engine for asyncio: opens streams, pushes samples, iterates over events.

    client = Client(engine)                        # one per event loop
    stream = await client.open(chunk_ms=160)
    stream.push(samples)
    flush_id = stream.flush()
    async for event in stream:                     # ends behind Ended or Failed
        ...

The engine calls back on its own thread, at most once per step; the client hands all events of that step to the loop in
one `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from nemostream import errors
from nemostream.protocol import (
    FLOAT32,
    INT16,
    Checkpoint,
    Close,
    Ended,
    Endpointing,
    Event,
    Failed,
    Final,
    Flush,
    Gap,
    Interim,
    Message,
    Mute,
    Open,
    Pcm,
    Preflight,
    Priority,
    Push,
    Refused,
    Samples,
    Started,
    Unmute,
    Update,
    Usage,
)

if TYPE_CHECKING:
    from nemostream.registry import AnyEngine

OPEN_TIMEOUT = 10.0


class Client:
    """Streams of one event loop on one engine.

    Must be made inside the loop. `close()` closes every stream that is still open.
    """

    def __init__(self, engine: AnyEngine) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, ClientStream] = {}
        self._numbers = itertools.count()
        self._closed = False
        self._connection = engine.connect(self._deliver)

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    async def open(
        self,
        *,
        model: str | None = None,
        chunk_ms: int | None = None,
        language: str | None = None,
        decoder: Literal["rnnt", "ctc"] | None = None,
        endpointing: Endpointing | None = None,
        keyterms: Sequence[str] = (),
        skip_silence: bool = False,
        priority: Priority = "live",
        resume: bytes | None = None,
        timeout: float = OPEN_TIMEOUT,
    ) -> ClientStream:
        """Open a stream; the fields are those of `protocol.Open`.

        Raises:
            EngineFull, UnknownModel, BundleError, UnsupportedChunk, NemostreamError: the engine refused.
            TimeoutError: no answer within `timeout` seconds (a model may still be loading); the open is taken back.
        """
        if self._closed:
            raise errors.StreamClosed("the client is closed")
        number = next(self._numbers)
        stream = self._streams[number] = ClientStream(number, self)
        self.send(
            Open(
                stream=number,
                model=model,
                chunk_ms=chunk_ms,
                language=language,
                decoder=decoder,
                endpointing=endpointing,
                keyterms=tuple(keyterms),
                skip_silence=skip_silence,
                priority=priority,
                resume=resume,
            )
        )
        try:
            stream.started = await asyncio.wait_for(stream.answer, timeout)
            stream.at_sample = stream.started.at_sample
        except TimeoutError:
            stream.close(drain=False)
            raise TimeoutError(f"the engine did not open a stream within {timeout:g} s") from None
        except BaseException:
            stream.close(drain=False)
            raise
        return stream

    def send(self, *messages: Message) -> None:
        if not self._closed:
            self._connection.send(*messages)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._connection.close()
        for stream in list(self._streams.values()):
            stream.take(Ended(stream.number, 0, 0))
        self._streams.clear()

    def _deliver(self, events: Sequence[Event]) -> None:
        """On the engine's thread."""
        try:
            self._loop.call_soon_threadsafe(self._dispatch, tuple(events))
        except RuntimeError:
            # The loop was closed with streams open: nobody is left to hear of them.
            self._connection.close()

    def _dispatch(self, events: Sequence[Event]) -> None:
        for event in events:
            stream = self._streams.get(event.stream)
            if stream is None:
                continue
            if isinstance(event, (Ended, Failed, Refused)):
                del self._streams[event.stream]
            stream.take(event)


class ClientStream:
    """One open stream. Iterate over it for its events; every other method returns at once.

    Unread events: of Interim and Preflight only the newest is kept (a later one, or the segment's Final, replaces it);
    Usage is summed up into one; Finals are never dropped. So who stops reading holds one event per Final and two more.

    Attributes:
        at_sample: the stream's clock, where the next push begins.
        kept: done when the stream has ended; see `close`.
    """

    def __init__(self, number: int, client: Client) -> None:
        self.number = number
        self.answer: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self.started: Started | None = None
        self.at_sample = 0
        self.kept: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._client = client
        self._flush_ids = itertools.count(1)
        self._closing = False
        self._over = False
        self._unread: deque[Event] = deque()
        self._arrived = asyncio.Event()

    @property
    def over(self) -> bool:
        """It has ended, or failed: nothing more comes."""
        return self._over

    def push(self, samples: Samples | Pcm) -> None:
        """Append audio, shape (N,) at 16 kHz, float32 in -1..1 or int16; copied, so the buffer may be used again.

        Raises:
            AudioError: another dtype: converting would hide its scale.
            StreamClosed: the stream is closed.
        """
        self._check_open()
        if samples.dtype not in (FLOAT32, INT16):
            raise errors.AudioError(f"push takes float32 samples in -1..1, or int16, not {samples.dtype}")
        samples = samples.copy()
        self._client.send(Push(self.number, samples, self.at_sample))
        self.at_sample += len(samples)

    def gap(self, samples: int) -> None:
        """Let `samples` of time pass without audio."""
        self._check_open()
        self._client.send(Gap(self.number, samples))
        self.at_sample += samples

    def flush(self) -> int:
        """Ask for a Final now; it carries the returned id."""
        self._check_open()
        flush_id = next(self._flush_ids)
        self._client.send(Flush(self.number, flush_id))
        return flush_id

    def mute(self) -> None:
        self._check_open()
        self._client.send(Mute(self.number))

    def unmute(self) -> None:
        self._check_open()
        self._client.send(Unmute(self.number))

    def update(
        self,
        endpointing: Endpointing | None = None,
        language: str | None = None,
        keyterms: Sequence[str] | None = None,
    ) -> None:
        """Change how the stream is heard from here on (protocol.Update); None leaves a thing as it is."""
        self._check_open()
        terms = None if keyterms is None else tuple(keyterms)
        self._client.send(Update(self.number, endpointing, language, terms))

    def close(self, drain: bool = True, keep: bool = False) -> None:
        """End the stream; a second call may only turn a draining close into an immediate one. With `keep`, `kept` is
        what the next `open` may resume, or None."""
        if self._over or (self._closing and drain):
            return
        self._closing = True
        self._client.send(Close(self.number, drain, keep))

    def __aiter__(self) -> ClientStream:
        return self

    async def __anext__(self) -> Event:
        while not self._unread:
            if self._over:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._unread.popleft()

    def take(self, event: Event) -> None:
        """Called by the client, on the loop, for each of this stream's events in order."""
        if isinstance(event, Started):
            if not self.answer.done():
                self.answer.set_result(event)
            return
        if isinstance(event, Checkpoint):
            self.kept.set_result(event.snapshot)
            return
        if isinstance(event, (Refused, Ended, Failed)):
            self._over = True
            if not self.kept.done():
                self.kept.set_result(None)
            if not self.answer.done():
                self.answer.set_exception(_error(event))
                self.answer.exception()  # an open that was cancelled leaves nobody to fetch it
        elif isinstance(event, (Interim, Preflight, Final)):
            self._drop_unread_hypothesis()
        elif isinstance(event, Usage):
            event = self._sum_unread_usage(event)
        self._unread.append(event)
        self._arrived.set()

    def _drop_unread_hypothesis(self) -> None:
        # At most one is ever there, near the end: whatever came behind it was a Usage.
        for i in range(len(self._unread) - 1, -1, -1):
            if isinstance(self._unread[i], (Interim, Preflight)):
                del self._unread[i]
                return
            if isinstance(self._unread[i], Final):
                return

    def _sum_unread_usage(self, event: Usage) -> Usage:
        for i, unread in enumerate(self._unread):
            if isinstance(unread, Usage):
                del self._unread[i]
                return dataclasses.replace(event, samples=event.samples + unread.samples)
        return event

    def _check_open(self) -> None:
        if self._closing or self._over:
            raise errors.StreamClosed(f"stream {self.number} is closed")


def _error(event: Refused | Ended | Failed) -> errors.NemostreamError:
    """The typed error of nemostream.errors that `event` names."""
    if isinstance(event, Ended):
        return errors.StreamClosed("the stream was closed before it was opened")
    if event.code == errors.EngineFull.__name__:
        retry_after = event.retry_after if isinstance(event, Refused) else None
        return errors.EngineFull(event.message, retry_after if retry_after is not None else 1.0)
    kind = getattr(errors, event.code, None)
    if isinstance(kind, type) and issubclass(kind, errors.NemostreamError):
        return kind(event.message)
    return errors.NemostreamError(event.message)

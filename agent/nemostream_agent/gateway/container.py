"""Audio in a container (WAV, Ogg, WebM, MP3, FLAC, AAC, fragmented MP4), in pieces of any size, as the engine takes it.

decode = ContainerDecoder()
async for samples in decode.push(data): ...     # what can be decoded by now: float32 mono at 16 kHz
async for samples in decode.finish(): ...
decode.close()                                  # in any case: a thread waits for more

libavformat asks for bytes and waits until it gets them, so it runs on a thread of its own. Thread and event loop take
turns: the thread decodes until it has a block of samples or wants more bytes, says so, and waits for an order.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import BinaryIO, Literal, cast

import numpy as np

from nemostream.audio import read_audio
from nemostream.errors import AudioError
from nemostream.protocol import SAMPLE_RATE, Samples

from .formats import OPTIONS

BLOCK = SAMPLE_RATE
"""Samples that are handed over at once, in time for others: a few bytes may decode to hours."""
PROBE = {"probesize": str(1 << 20), "analyzeduration": "1"}
"""The format must show in the first MiB (a picture may come before the sound); what is in it, in its first packets."""
SOUNDLESS_BYTES = 16 << 20
"""Bytes without a sound in them beyond which it is no audio: a packet may claim any size."""

Order = bytes | Literal["go on", "stop"]
"""Bytes answer "more"; none at all are the end of the audio."""
Answer = Samples | Exception | Literal["more", "end"]


class ContainerDecoder:
    """One stream's. Must be made inside the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._answers: asyncio.Queue[Answer] = asyncio.Queue()
        self._thread = threading.Thread(target=self._run, name="gateway-container", daemon=True)
        self._over = False

    async def push(self, data: bytes) -> AsyncIterator[Samples]:
        """Raises AudioError where it is no audio. What comes behind the end of the container does not count."""
        if data:
            async for samples in self._exchange(data):
                yield samples

    async def finish(self) -> AsyncIterator[Samples]:
        """Raises AudioError where something came, but no audio."""
        if self._thread.ident is not None:
            async for samples in self._exchange(b""):
                yield samples

    def close(self) -> None:
        """The thread ends, soon."""
        self._over = True
        self._orders.put("stop")

    async def _exchange(self, data: bytes) -> AsyncIterator[Samples]:
        if self._over:
            return
        if self._thread.ident is None:
            self._thread.start()
        self._orders.put(data)
        while not isinstance(answer := await self._answers.get(), str):
            if isinstance(answer, Exception):
                self._over = True
                raise answer
            yield answer
            self._orders.put("go on")
        self._over = self._over or answer == "end"

    def _run(self) -> None:
        """The thread."""
        try:
            _decode(_Pipe(self._orders.get, self._tell))
            self._tell("end")
        except _Stopped:
            pass
        except Exception as error:
            self._tell(error)

    def _tell(self, answer: Answer) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._answers.put_nowait, answer)


class _Stopped(Exception):
    """Nobody wants the samples any more."""


class _Pipe:
    """The thread's side: a file for libavformat, and a place for what comes out of it."""

    def __init__(self, wait: Callable[[], Order], tell: Callable[[Answer], None]) -> None:
        self._wait, self._tell = wait, tell
        self._rest = memoryview(b"")
        self._begun = self._ended = self._stopped = False
        self._soundless = 0
        self._blocks: list[Samples] = []
        self._held = 0

    def read(self, size: int) -> bytes:
        """At least one byte; none at the end."""
        if not self._rest and not self._ended:
            self.hand_over()
            if self._begun:
                self._tell("more")
            self._begun = True
            self._rest = memoryview(cast(bytes, self._order()))
            self._ended = not self._rest
        part, self._rest = bytes(self._rest[:size]), self._rest[size:]
        self._soundless += len(part)
        if self._soundless > SOUNDLESS_BYTES:
            raise AudioError(f"there is no sound in the last {SOUNDLESS_BYTES >> 20} MiB of the audio")
        return part

    def write(self, samples: Samples) -> None:
        self._soundless = 0
        self._blocks.append(samples)
        self._held += len(samples)
        if self._held >= BLOCK:
            self.hand_over()

    def hand_over(self) -> None:
        """What is here, if there is any."""
        if self._held:
            self._tell(np.concatenate(self._blocks))
            self._blocks, self._held = [], 0
            self._order()

    def _order(self) -> Order:
        if self._stopped or (order := self._wait()) == "stop":
            self._stopped = True  # some demuxers read again behind an error
            raise _Stopped
        return order


class _File:
    """What PyAV takes: it can only be read, so nothing is sought in it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


def _decode(pipe: _Pipe) -> None:
    """All of it.

    Raises:
        AudioError: it is no audio.
    """
    heard = False
    for samples, _ in read_audio(cast(BinaryIO, _File(pipe.read)), {**OPTIONS, **PROBE}):
        if not np.isfinite(samples).all():
            raise AudioError("the audio holds NaN or infinite samples; send finite values in -1..1")
        heard = heard or len(samples) > 0
        pipe.write(samples)
    if not heard:
        raise AudioError("there is no sound in the audio")
    pipe.hand_over()

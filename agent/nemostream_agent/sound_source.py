"""Sound as a live stream sends it: frames of 20 ms, PCM16 mono at 16 kHz, of a file or the microphone.

async for frame in file(Path("speech.wav"))(stop): ...       # ends early when `stop` is set
async for frame in microphone(stop): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemostream.audio import read_audio
from nemostream.errors import AudioError
from nemostream.protocol import Samples

from .protocols.talk import RATE

FRAME_MS = 20
FRAME = RATE * FRAME_MS // 1000
"""Samples."""
WAITING = 3000
"""Frames of the microphone that wait for the line, a minute; then the oldest is lost."""


def pcm16(samples: Samples) -> bytes:
    """Float32 in -1..1 to little-endian 16 bits."""
    scaled: npt.NDArray[np.int16] = (samples.clip(-1, 1) * np.float32(32767)).astype("<i2")
    return scaled.tobytes()


def frames_of(path: Path) -> Iterator[bytes]:
    """A file's; the last one may be shorter.

    Raises:
        AudioError: it cannot be read.
    """
    rest = np.zeros(0, np.float32)
    for block, _ in read_audio(path):
        rest = np.concatenate([rest, block])
        whole = len(rest) - len(rest) % FRAME
        for begin in range(0, whole, FRAME):
            yield pcm16(rest[begin : begin + FRAME])
        rest = rest[whole:]
    if len(rest):
        yield pcm16(rest)


def file(path: Path, paced: bool = True) -> Callable[[asyncio.Event], AsyncIterator[bytes]]:
    """`paced`: by the clock, as they are spoken.

    Raises:
        AudioError: it cannot be read; what is broken further on shows when it is reached.
    """
    frames = frames_of(path)
    first = next(frames, b"")

    async def sent(stop: asyncio.Event) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        began, samples, frame = loop.time(), 0, first
        while frame and not stop.is_set():
            if paced:
                await _until(stop, began + samples / RATE - loop.time())
            yield frame
            samples += len(frame) // 2
            frame = next(frames, b"")

    return sent


async def _until(stop: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            pass


async def microphone(stop: asyncio.Event) -> AsyncIterator[bytes]:
    """Until `stop` is set.

    Raises:
        AudioError: there is none.
    """
    try:
        import sounddevice  # type: ignore[import-untyped]
    except OSError as error:
        raise AudioError(f"the microphone cannot be used: {error}; install PortAudio, or send a file") from error
    loop = asyncio.get_running_loop()
    frames: asyncio.Queue[bytes] = asyncio.Queue(WAITING)

    def take(frame: bytes) -> None:
        if frames.full():
            frames.get_nowait()
        frames.put_nowait(frame)

    def recorded(data: bytes, *_: object) -> None:
        # On PortAudio's thread, in memory that is its own.
        loop.call_soon_threadsafe(take, bytes(data))

    try:
        recording = sounddevice.RawInputStream(RATE, FRAME, channels=1, dtype="int16", callback=recorded)
    except sounddevice.PortAudioError as error:
        raise AudioError(f"there is no microphone that can be used: {error}") from error
    stopped = asyncio.create_task(stop.wait())
    try:
        with recording:
            while not stop.is_set():
                next_frame = asyncio.create_task(frames.get())
                await asyncio.wait({next_frame, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if next_frame.done():
                    yield next_frame.result()
                else:
                    next_frame.cancel()
    finally:
        stopped.cancel()

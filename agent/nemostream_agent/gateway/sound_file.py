"""A sound file that somebody else has made: how long it is, and its samples, a second at a time and on a thread.

file = SoundFile(upload.file, executor)
async for seconds in file.elapsed(): ...          # up to its true length
async for samples in file.samples(16_000): ...    # so many of them, float32 mono at 16 kHz
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import BinaryIO, TypeVar

import numpy as np

from nemostream.audio import elapsed, read_audio
from nemostream.protocol import SAMPLE_RATE, Samples

from .formats import OPTIONS

BLOCK = SAMPLE_RATE
"""Samples that are decoded between two looks at anything else."""
COUNTED = 30.0
"""Seconds that are counted so: that is faster."""
T = TypeVar("T")


class SoundFile:
    """`file` may be sought in, and must stay open while somebody iterates."""

    def __init__(self, file: BinaryIO, executor: Executor) -> None:
        self._file, self._executor = file, executor

    async def elapsed(self) -> AsyncIterator[float]:
        """Seconds up to here, growing to the file's length; none at all where there is no sound in it.

        Raises:
            AudioError: it cannot be read.
        """
        self._file.seek(0)
        marks, mark = elapsed(self._file, OPTIONS), 0.0
        while (further := await self._on_thread(partial(_beyond, marks, mark + COUNTED))) is not None:
            mark = further
            yield mark

    async def samples(self, wanted: int) -> AsyncIterator[Samples]:
        """So many, with silence behind those of the file where it has fewer, in blocks of at most BLOCK.

        Raises:
            AudioError: it cannot be read.
        """
        self._file.seek(0)
        blocks = _blocks(self._file, wanted)
        while (block := await self._on_thread(partial(next, blocks, None))) is not None:
            yield block

    async def _on_thread(self, work: Callable[[], T]) -> T:
        """Who is cancelled waits until it is done, for the file is closed then."""
        running = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise


def _beyond(marks: Iterator[float], least: float) -> float | None:
    """The first of the growing `marks` that is not below `least`, else the last one; None: there are no more."""
    mark = None
    for mark in marks:
        if mark >= least:
            break
    return mark


def _blocks(file: BinaryIO, wanted: int) -> Iterator[Samples]:
    held: list[Samples] = []
    for part, _ in read_audio(file, OPTIONS):
        held.append(part)
        if sum(map(len, held)) >= min(BLOCK, wanted):
            block = np.concatenate(held)[:wanted]
            held, wanted = [], wanted - len(block)
            yield from np.split(block, range(BLOCK, len(block), BLOCK))
        if not wanted:
            return
    rest = np.concatenate([*held, np.zeros(0, np.float32)])
    while wanted:
        block = np.zeros(min(BLOCK, wanted), np.float32)
        block[: len(rest)], rest, wanted = rest[: len(block)], rest[len(block) :], wanted - len(block)
        yield block

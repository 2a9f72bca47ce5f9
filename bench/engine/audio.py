"""What the streams of a load hear and when: one long conversation, each stream from another place in it.

load = Load(streams=8, chunk_ms=160, block_ms=80, seconds=20)
load.samples(3), load.start_tick(3), load.sent_by(3)
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.speech import ROOT, conversation
from nemostream.inbox import as_float
from nemostream.protocol import SAMPLE_RATE, Pcm, Samples

CACHE = ROOT / ".cache" / "bench"
TICK_MS = 10
TALK_SECONDS = 600
APART_SECONDS = 37.3
"""Between the places where two neighbours begin."""
EARLY_SAMPLES = 1080
"""A chunk needs so much less than its nominal end: its last mel frame is 8 before it, complete after 200 samples."""


@dataclass(frozen=True, slots=True)
class Load:
    """N streams in real time.

    Attributes:
        block_ms: audio of one push, as a media process gets it.
        flush_seconds: between two flushes of a stream; 0: only at its end.
        noise: noise in place of speech.
    """

    streams: int
    chunk_ms: int
    block_ms: int
    seconds: float
    flush_seconds: float = 0.0
    noise: bool = False

    @property
    def block(self) -> int:
        return self.block_ms * SAMPLE_RATE // 1000

    @property
    def blocks(self) -> int:
        """Pushes of each stream; whole chunks."""
        chunks = max(1, int(self.seconds * 1000 / self.chunk_ms))
        return -(-chunks * self.chunk_ms // self.block_ms)

    def start_tick(self, stream: int) -> int:
        """When the stream begins, spread evenly over a chunk."""
        return stream * (self.chunk_ms // TICK_MS) // self.streams

    def samples(self, stream: int) -> Samples:
        """All that the stream hears."""
        return as_float(self.pcm(stream))

    def pcm(self, stream: int) -> Pcm:
        """The same as it is sent; a view where it can be."""
        talk = _noise() if self.noise else _talk()
        start = int(stream * APART_SECONDS * SAMPLE_RATE) % len(talk)
        needed = self.blocks * self.block
        return talk[start : start + needed] if start + needed <= len(talk) else np.resize(talk[start:], needed)

    def flush_after(self, stream: int) -> frozenset[int]:
        """Blocks behind which the stream flushes; the last is one of them."""
        last = self.blocks - 1
        if not self.flush_seconds:
            return frozenset((last,))
        every = max(1, int(self.flush_seconds * 1000 / self.block_ms))
        return frozenset((*range(stream * 7 % every, last, every), last))

    def completing(self, chunks: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The blocks whose last sample completes these chunks."""
        needed = (chunks + 1) * (self.chunk_ms * SAMPLE_RATE // 1000) - EARLY_SAMPLES
        return -(-needed // self.block) - 1


@lru_cache
def _talk() -> Pcm:
    """Ten minutes, half of them speech, as 16 bit audio: decoded once, kept under .cache/bench."""
    key = hashlib.sha256((ROOT / "bench" / "speech.py").read_bytes() + os.environ.get("SHARED", "").encode())
    path = CACHE / f"talk-{key.hexdigest()[:12]}.npy"
    if not path.is_file():
        _keep(path, conversation(0, TALK_SECONDS))
    talk: Pcm = np.load(path, mmap_mode="r")
    return talk


def _keep(path: Path, samples: Samples) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16))
    os.replace(partial, path)


@lru_cache
def _noise() -> Pcm:
    return np.random.default_rng(0).integers(-3000, 3000, 60 * SAMPLE_RATE, np.int16)

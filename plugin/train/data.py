"""Speech to train on: shards of ten minutes (NNNN.opus and NNNN.jsonl) as clips of int16 samples with token ids.

    corpus = load_corpus([Path("corpus_en")], held_out, tokenizer.encode, cache)
    corpus[0].samples, corpus[0].text

A shard is decoded once into `cache` and mapped from there: a resumed run starts at once, and memory holds what is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from train.heldout import normalise

SAMPLE_RATE = 16_000
SHORTEST_SAMPLES = SAMPLE_RATE // 2
LONGEST_SAMPLES = 10 * SAMPLE_RATE

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One spoken sentence. `samples` (n,) int16 at 16 kHz, a view of the mapped shard; it is drawn in
    proportion to `weight`."""

    samples: npt.NDArray[np.int16]
    text: str
    voice: str
    tokens: tuple[int, ...]
    weight: float

    def wave(self) -> Samples:
        """(n,) float32 in -1..1."""
        wave: Samples = self.samples.astype(np.float32) / np.float32(32768)
        return wave


def load_corpus(
    folders: Iterable[Path],
    held_out: frozenset[str],
    encode: Callable[[str], list[int]],
    cache: Path,
) -> list[Clip]:
    """Every clip of `folders` whose sentence is not held out. A folder's share of all draws is in proportion to the
    root of its length: many voices with few hours count, and so do the many words of one voice.

    Raises:
        FileNotFoundError: a folder has no shard.
    """
    clips: list[Clip] = []
    for folder in folders:
        found = list(_read_folder(folder, held_out, encode, cache))
        if not found:
            raise FileNotFoundError(
                f"{folder}: no shard (NNNN.jsonl with NNNN.opus) to train on; python -m train.speak makes them."
            )
        share = math.sqrt(sum(len(samples) for samples, *_ in found))
        clips += [Clip(samples, text, voice, tokens, share / len(found)) for samples, text, voice, tokens in found]
    return clips


def _read_folder(
    folder: Path, held_out: frozenset[str], encode: Callable[[str], list[int]], cache: Path
) -> Iterable[tuple[npt.NDArray[np.int16], str, str, tuple[int, ...]]]:
    for lines in sorted(folder.glob("*[0-9].jsonl")):
        shard = read_shard(lines.with_suffix(".opus"), cache)
        for line in lines.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            text = normalise(row["text"])
            start, length = round(row["start"] * SAMPLE_RATE), round(row["duration"] * SAMPLE_RATE)
            samples = shard[start : start + length]
            if text and text not in held_out and SHORTEST_SAMPLES <= len(samples) <= LONGEST_SAMPLES:
                yield samples, text, row["voice"], tuple(encode(text))


def read_shard(path: Path, cache: Path) -> npt.NDArray[np.int16]:
    """All of an Opus file as int16 (n,) at 16 kHz, memory-mapped from `cache`, where it is decoded on first use."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}".encode()).hexdigest()[:12]
    pcm = cache / f"{path.parent.name}-{path.stem}-{key}.npy"
    if not pcm.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = pcm.with_suffix(".partial")
        with open(partial, "wb") as out:
            np.save(out, _decode(path))
        os.replace(partial, pcm)
    shard: npt.NDArray[np.int16] = np.load(pcm, mmap_mode="r")
    return shard


def _decode(path: Path) -> npt.NDArray[np.int16]:
    import av

    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
    with av.open(str(path)) as box:
        frames = [out.to_ndarray().ravel() for frame in box.decode(audio=0) for out in resampler.resample(frame)]
        frames += [out.to_ndarray().ravel() for out in resampler.resample(None)]
    return np.concatenate(frames).astype(np.int16)

"""Speech for the measurements: held-out clips, one after another with pauses, so that about half of the time is speech.

talk = conversation(seed=3, seconds=60.0)      # (n,) float32, 16 kHz

The clips are those of $SHARED/corpus_en_heldout (SHARED: ../shared beside the checkout) or, where there is none, the
few that the tests bring along.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.random_weights import NOISE as NOISE  # what is heard in a pause
from nemostream.audio import read_audio
from nemostream.protocol import SAMPLE_RATE, Samples
from tests import clips

ROOT = Path(__file__).resolve().parent.parent
SHARDS = 1
"""Shards of ten minutes that are read: more clips than any one stream speaks."""


class Clip(NamedTuple):
    """A sentence and what is said in it."""

    samples: Samples
    text: str


@lru_cache
def sentences() -> tuple[Samples, ...]:
    """Every clip of SHARDS, one sentence each."""
    return tuple(clip.samples for clip in _clips(SHARDS))


def clips_with_text(most: int) -> list[Clip]:
    """The first so many clips of all shards."""
    return list(itertools.islice(_clips(None), most))


def _clips(shards: int | None) -> Iterator[Clip]:
    folder = Path(os.environ.get("SHARED", ROOT.parent / "shared")) / "corpus_en_heldout"
    found = sorted(folder.glob("*[0-9].jsonl"))[:shards]
    for lines in found:
        shard = np.concatenate([block for block, _ in read_audio(lines.with_suffix(".opus"))])
        for line in lines.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            start = round(row["start"] * SAMPLE_RATE)
            yield Clip(shard[start : start + round(row["duration"] * SAMPLE_RATE)], row["text"])
    if not found:
        yield from (Clip(clips.clip(name), text) for name, text in clips.TEXTS.items())


def conversation(seed: int, seconds: float, share: float = 0.5) -> Samples:
    """Clips in an order of `seed`, each followed by a pause, of which `share` is speech."""
    rng = np.random.default_rng(seed)
    pool, parts, length = sentences(), [], 0
    while length < seconds * SAMPLE_RATE:
        speech = pool[rng.integers(len(pool))]
        pause = int(len(speech) * (1 / share - 1) * rng.uniform(0.5, 1.5))
        parts += [speech, np.zeros(pause, np.float32)]
        length += len(speech) + pause
    talk = np.concatenate(parts)[: int(seconds * SAMPLE_RATE)]
    noise: Samples = rng.standard_normal(len(talk), np.float32) * np.float32(NOISE)
    return talk + noise

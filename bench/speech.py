"""Speech for the measurements: held-out clips, one after another with pauses, so that about half of the time is speech.

talk = conversation(seed=3, seconds=60.0)      # (n,) float32, 16 kHz

The clips are those of $SHARED/corpus_en_heldout (SHARED: ../shared beside the checkout) or, where there is none, the
few that the tests bring along.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from nemostream.audio import read_audio
from nemostream.protocol import SAMPLE_RATE, Samples
from tests import clips

ROOT = Path(__file__).resolve().parent.parent
SHARDS = 1
"""Shards of ten minutes that are read: more clips than any one stream speaks."""
NOISE = 3e-4
"""Standard deviation of what is heard in a pause: a quiet room, not digital silence."""


@lru_cache
def sentences() -> tuple[Samples, ...]:
    """Every clip, one sentence each."""
    folder = Path(os.environ.get("SHARED", ROOT.parent / "shared")) / "corpus_en_heldout"
    found: list[Samples] = []
    for lines in sorted(folder.glob("*[0-9].jsonl"))[:SHARDS]:
        shard = np.concatenate([block for block, _ in read_audio(lines.with_suffix(".opus"))])
        for line in lines.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            start = round(row["start"] * SAMPLE_RATE)
            found.append(shard[start : start + round(row["duration"] * SAMPLE_RATE)])
    return tuple(found) or tuple(clips.clip(name) for name in clips.TEXTS)


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

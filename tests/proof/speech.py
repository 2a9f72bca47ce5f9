"""Long speech in English for the proofs: the test clips, one after another."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from nemostream.audio import read_audio
from nemostream.protocol import Samples

CLIPS = sorted((Path(__file__).resolve().parent.parent / "clips").glob("*.opus"))


def sentences(seed: int, seconds: float = 130.0) -> Samples:
    """The test clips over and over, in an order and with pauses of their own."""
    rng = random.Random(seed)
    clips = [np.concatenate([block for block, _ in read_audio(path)]) for path in CLIPS]
    parts: list[Samples] = []
    while sum(map(len, parts)) < seconds * 16_000:
        parts += [rng.choice(clips), np.zeros(int(rng.uniform(0.1, 1.2) * 16_000), np.float32)]
    return np.concatenate(parts)

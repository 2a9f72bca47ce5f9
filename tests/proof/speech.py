"""Long speech in English for the proofs: the test clips, one after another."""

from __future__ import annotations

import random

import numpy as np

from nemostream.protocol import Samples
from tests.clips import TEXTS, clip


def sentences(seed: int, seconds: float = 130.0) -> Samples:
    """The test clips over and over, in an order and with pauses of their own."""
    rng = random.Random(seed)
    clips = [clip(name) for name in TEXTS]
    parts: list[Samples] = []
    while sum(map(len, parts)) < seconds * 16_000:
        parts += [rng.choice(clips), np.zeros(int(rng.uniform(0.1, 1.2) * 16_000), np.float32)]
    return np.concatenate(parts)

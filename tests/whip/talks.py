"""What the tests say over WHIP, and what is wrong with a text."""

from __future__ import annotations

from functools import lru_cache

import jiwer
import numpy as np

from bench.whip.talk import Talk
from nemostream.protocol import SAMPLE_RATE, Samples
from tests.clips import TEXTS, clip

LOCAL = ("--ice-address", "127.0.0.1")
"""Options of a gateway whose media stays on this machine."""
ORIGIN = "https://captions.example.com"


def quiet(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


@lru_cache
def talk(*names: str, pause: float = 1.5) -> Talk:
    """Clips with pauses between them; each pause ends a segment."""
    return Talk.of(sound(*names, pause=pause))


def sound(*names: str, pause: float = 1.5) -> Samples:
    """The same, 16 kHz mono."""
    parts = [part for name in names for part in (clip(name), quiet(pause))]
    return np.concatenate(parts[:-1])


def text(*names: str) -> str:
    """What is said in it."""
    return " ".join(TEXTS[name] for name in names)


def error_rate(wanted: str, found: str) -> float:
    """Words to insert, leave out or replace for each one that is wanted."""
    return float(jiwer.wer(wanted, found))

"""Clips of spoken English and what is said in them (README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from nemostream.audio import read_audio
from nemostream.protocol import Samples

FOLDER = Path(__file__).parent
TEXTS: dict[str, str] = json.loads((FOLDER / "clips.json").read_text())


def path(name: str) -> Path:
    return FOLDER / f"{name}.opus"


def clip(name: str) -> Samples:
    """16 kHz mono."""
    return np.concatenate([block for block, _ in read_audio(path(name))])

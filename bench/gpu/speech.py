"""What the streams of bench.gpu hear: tones where nothing decodes speech, or clips that were taken along.

python -m bench.gpu.speech clips.npz     # where the tests run: clips as samples, for `--speech` on the other machine
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from nemostream.protocol import FULL_SCALE, SAMPLE_RATE, Samples
from tests.speech import WORDS, synth


def tones(seed: int, seconds: float, share: float = 1.0) -> Samples:
    """Words of three tones each, from a seed; a `share` of the time, the rest is near-silence."""
    rng = np.random.RandomState(seed)
    parts: list[Samples] = []
    total, wanted = 0, int(seconds * SAMPLE_RATE)
    while total < wanted:
        words = [WORDS[i] for i in rng.randint(0, len(WORDS), 6)]
        parts.append(synth(words, rng, lead=0.05, tail=0.05))
        pause = int(len(parts[-1]) * (1 - share) / share)
        parts.append((0.003 * rng.standard_normal(pause)).astype(np.float32))
        total += len(parts[-2]) + pause
    return np.concatenate(parts)[:wanted]


def read(path: Path) -> list[Samples]:
    """The clips that `write` took along."""
    with np.load(path) as clips:
        return [clips[name].astype(np.float32) / FULL_SCALE for name in clips.files]


def write(path: Path) -> None:
    """The tests' clips as int16 samples."""
    from tests import clips

    said: dict[str, Any] = {name: (clips.clip(name) * 32767).astype(np.int16) for name in clips.TEXTS}
    np.savez_compressed(path, **said)


if __name__ == "__main__":
    write(Path(sys.argv[1]))

"""Speech of the toy language, synthesised from a seed: every word is a pattern of three tones.

    words, samples = utterance(7)

The same as what toy.nemo was trained on, so that "audio in, these words out" can be tested without recorded audio.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

WORDS = "hello world this is a test of the small streaming model please call me back now yes no stop".split()
TONES_HZ = (350, 500, 720, 1040, 1500, 2150, 3100)
UNIT_SAMPLES = 28 * 1280
"""2240 ms: a whole number of chunks of 1, 2, 4, 7 and 14 frames."""

Samples = npt.NDArray[np.float32]


def _patterns() -> dict[str, tuple[int, ...]]:
    patterns = list(itertools.permutations(range(len(TONES_HZ)), 3))
    np.random.RandomState(7).shuffle(patterns)
    return dict(zip(WORDS, patterns, strict=False))


PATTERNS = _patterns()


def synth(
    words: Sequence[str], rng: np.random.RandomState, lead: float = 0.2, tail: float = 0.6, noise: float = 0.003
) -> Samples:
    """Speak `words`: 16 kHz float32. `lead` and `tail` in seconds of near-silence, `noise` its standard deviation.
    The order of draws from `rng` is that of the training, and part of the golden files."""
    parts = [np.zeros(int(16000 * (lead + 0.3 * rng.rand())), np.float32)]
    for word in words:
        for tone in PATTERNS[word]:
            n = int(16000 * (0.11 + 0.04 * rng.rand()))
            t = np.arange(n) / 16000
            envelope = np.minimum(1, np.minimum(t, t[::-1]) / 0.01)
            frequency = TONES_HZ[tone] * (1 + 0.02 * rng.randn())
            loud = 0.2 * (0.6 + 0.8 * rng.rand())
            parts.append((loud * envelope * np.sin(2 * np.pi * frequency * t)).astype(np.float32))
        parts.append(np.zeros(int(16000 * (0.06 + 0.22 * rng.rand())), np.float32))
    parts.append(np.zeros(int(16000 * tail), np.float32))
    samples = np.concatenate(parts)
    return samples + np.float32(noise) * rng.randn(len(samples)).astype(np.float32)


def utterance(seed: int, words: int | None = None) -> tuple[list[str], Samples]:
    """A sentence of 2 to 7 words (or `words`), padded with near-silence to whole chunks of every size.

    The length is 35840 n - 1080 samples, at which NeMo's offline answer has exactly 28 n frames and none of them sees
    NeMo's padding: chunk k ends with mel frame 8T(k+1) - 8, which is final 200 samples later. Shorter or longer audio
    would differ from any streaming answer in its last frame, whose right side NeMo masks.
    """
    rng = np.random.RandomState(seed)
    spoken = [WORDS[i] for i in rng.randint(0, len(WORDS), words or rng.randint(2, 8))]
    samples = synth(spoken, rng)
    missing = -(len(samples) + 1080) % UNIT_SAMPLES
    padding = np.float32(0.003) * rng.randn(missing).astype(np.float32)
    return spoken, np.concatenate([samples, padding])

"""What the streams say: tracks of whole sentences with pauses, and what should be understood.

track = make(seed=3, seconds=60.0)      # exactly so long; it ends with the last sentence
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.speech import NOISE, Clip, clips_with_text
from nemostream.protocol import SAMPLE_RATE, Samples

POOL = 200
"""Clips to choose from."""
SHARE = 0.5
"""Of speech, at most."""
LOUD = 0.05
"""Speech begins with the first sample above this part of its clip's peak, and ends with the last one."""
TAIL = SAMPLE_RATE // 5
"""Behind the end of the last clip's speech: who has spoken ends the stream, and soft sounds are not cut off."""


@dataclass(frozen=True, slots=True)
class Track:
    """`pcm`: 16 kHz; `speech_at`: the sample at which the first word begins."""

    pcm: npt.NDArray[np.int16]
    text: str
    speech_at: int


@lru_cache
def pool() -> list[Clip]:
    return clips_with_text(POOL)


def make(seed: int, seconds: float) -> Track:
    """
    Raises:
        ValueError: no clip is as short as that.
    """
    rng, length = np.random.default_rng(seed), round(seconds * SAMPLE_RATE)
    clips = pool()
    chosen: list[Clip] = []
    spoken = 0
    for index in rng.permutation(len(clips)):
        clip = clips[index]
        if spoken + len(clip.samples) <= (length * SHARE if chosen else length):
            chosen.append(clip)
            spoken += len(clip.samples)
    if not chosen:
        raise ValueError(f"no clip fits into {seconds:g} s; the shortest has {_shortest(clips):.1f} s")
    chosen[-1] = Clip(chosen[-1].samples[: _loud(chosen[-1])[-1] + TAIL], chosen[-1].text)
    spoken = sum(len(clip.samples) for clip in chosen)
    weights = rng.uniform(0.5, 1.5, len(chosen))
    ends = np.round(np.cumsum(weights) / weights.sum() * (length - spoken)).astype(int)
    pauses = np.diff(ends, prepend=0)
    parts: list[Samples] = []
    for pause, clip in zip(pauses, chosen, strict=True):
        parts += [np.zeros(pause, np.float32), clip.samples]
    samples = np.concatenate(parts) + rng.standard_normal(length, np.float32) * np.float32(NOISE)
    begin = int(pauses[0]) + int(_loud(chosen[0])[0])
    pcm: npt.NDArray[np.int16] = (samples.clip(-1, 1) * 32767).astype(np.int16)
    return Track(pcm, " ".join(clip.text for clip in chosen), begin)


def _loud(clip: Clip) -> npt.NDArray[np.intp]:
    """Its samples of speech."""
    level = np.abs(clip.samples)
    return np.flatnonzero(level > LOUD * level.max())


def _shortest(clips: list[Clip]) -> float:
    return min(len(clip.samples) for clip in clips) / SAMPLE_RATE


def save(path: Path, tracks: list[Track]) -> None:
    """For the processes that send them."""
    np.savez(path, pcm=np.stack([t.pcm for t in tracks]), speech_at=[t.speech_at for t in tracks])


def load(path: Path) -> list[Track]:
    """Without their texts."""
    with np.load(path) as held:
        return [Track(pcm, "", int(at)) for pcm, at in zip(held["pcm"], held["speech_at"], strict=True)]

"""Plans: what the sessions say. A known sentence, a track of held-out sentences, and the known sentence again.

plan = make(seed=3, seconds=60.0)        # plan.begins <= seconds of the track < plan.ends

Packets are lost in the track alone. The sentence in front says what the delay is before, the one behind what it is
after; both are in no count of words.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from bench.server import tracks
from bench.speech import NOISE
from bench.whip.talk import Talk
from nemostream.protocol import SAMPLE_RATE, Samples
from tests.clips import clip

SENTENCE = "monday"
APART_SECONDS = 1.0
"""Of quiet between the sentence and the track, and behind each."""


class Plan(msgspec.Struct, frozen=True):
    """`packets`: see Talk. `text`: what is said between `begins` and `ends`, in seconds of the whole."""

    packets: list[bytes]
    begins: float
    ends: float
    text: str

    @property
    def seconds(self) -> float:
        return Talk(tuple(self.packets)).seconds


def make(seed: int, seconds: float) -> Plan:
    """
    Raises:
        ValueError: no clip is as short as that.
    """
    track, rng = tracks.make(seed, seconds), np.random.default_rng(seed)
    quiet = np.zeros(round(APART_SECONDS * SAMPLE_RATE), np.float32)
    front = np.concatenate([quiet[: len(quiet) // 4], clip(SENTENCE), quiet])
    spoken = [front, track.pcm.astype(np.float32) / 32768, quiet, clip(SENTENCE), quiet]
    samples: Samples = np.concatenate(spoken)
    samples = samples + rng.standard_normal(len(samples), np.float32) * np.float32(NOISE)
    begins = len(front) / SAMPLE_RATE
    return Plan(list(Talk.of(samples).packets), begins, begins + seconds + APART_SECONDS / 2, track.text)


def save(path: Path, plans: list[Plan]) -> None:
    """For the processes that say them."""
    path.write_bytes(msgspec.msgpack.encode(plans))


def load(path: Path) -> list[Plan]:
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Plan])

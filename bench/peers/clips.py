"""What is heard: a talk to time steps on, and clips with their text, each between silences.

The clips are those of $SHARED/corpus_en_heldout (SHARED: ../shared beside the checkout) or, where there is none, the
few that the tests bring along.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.peers.sides import ALIGN_SAMPLES
from nemostream.audio import read_audio
from nemostream.protocol import SAMPLE_RATE, Samples
from tests import clips as few

ROOT = Path(__file__).resolve().parents[2]
TALK_SECONDS = 300
PAUSE_SECONDS = 0.3
LEAD_SECONDS = 0.64
"""Silence before a clip: sherpa-onnx drops what the encoder says to the first 160 ms."""
TAIL_SECONDS = 2.6
"""Silence behind a clip: two of the longest chunks, so that every side comes to the end without a flush."""
NOISE = 3e-4
"""Standard deviation of what is heard in silence: a quiet room."""


@dataclass(frozen=True)
class Clip:
    """A sentence; `heard` is it between silences."""

    samples: Samples
    text: str

    @property
    def heard(self) -> Samples:
        rng = np.random.default_rng(len(self.samples))
        lead = np.zeros(int(LEAD_SECONDS * SAMPLE_RATE) + ALIGN_SAMPLES, np.float32)
        tail = np.zeros(int(TAIL_SECONDS * SAMPLE_RATE), np.float32)
        joined = np.concatenate([lead, self.samples, tail])
        noise: Samples = rng.standard_normal(len(joined), np.float32) * np.float32(NOISE)
        return joined + noise


def held_out(count: int) -> tuple[str, list[Clip]]:
    """Where they are from, and `count` sentences (or all there are) spread over the corpus."""
    folder = Path(os.environ.get("SHARED", ROOT.parent / "shared")) / "corpus_en_heldout"
    shards = sorted(folder.glob("*[0-9].jsonl"))
    if not shards:
        return "tests/clips", [Clip(few.clip(name), text) for name, text in few.TEXTS.items()][:count]
    found: list[Clip] = []
    for lines in shards:
        shard = np.concatenate([block for block, _ in read_audio(lines.with_suffix(".opus"))])
        for line in lines.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            start = round(row["start"] * SAMPLE_RATE)
            found.append(Clip(shard[start : start + round(row["duration"] * SAMPLE_RATE)], row["text"]))
    return folder.name, found[:: max(1, len(found) // count)][:count]


def talk(clips: list[Clip]) -> Samples:
    """Sentence after sentence, with short pauses."""
    pause = np.zeros(int(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    joined = np.concatenate([part for clip in clips for part in (clip.samples, pause)])
    rng = np.random.default_rng(0)
    noise: Samples = rng.standard_normal(len(joined), np.float32) * np.float32(NOISE)
    heard = joined + noise
    return heard[: TALK_SECONDS * SAMPLE_RATE]

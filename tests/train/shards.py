"""Writes shards as make_speech.py does, with any audio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from train.data import SAMPLE_RATE, Samples


def write_shard(folder: Path, spoken: Sequence[tuple[str, Samples]], voice: str = "test") -> None:
    """`folder`/0000.opus and 0000.jsonl: the sentences one behind the other."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, start = [], 0
    for text, wave in spoken:
        times = {"start": start / SAMPLE_RATE, "duration": len(wave) / SAMPLE_RATE}
        rows.append({"audio": "0000.opus", **times, "text": text, "voice": voice})
        start += len(wave)
    (folder / "0000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pcm = (np.concatenate([wave for _, wave in spoken]) * 32767).astype(np.int16)
    with av.open(str(folder / "0000.opus"), "w", format="ogg") as box:
        stream = box.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        box.mux(stream.encode(frame))
        box.mux(stream.encode(None))

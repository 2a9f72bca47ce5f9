"""What skipping silence costs in words and saves in time: the same talk through the embedded model with and without it.

OPENBLAS_NUM_THREADS=1 python -m bench.gate --utterances 240 --pauses 2,10 --chunk-ms 160,1120

Held-out clips ($SHARED/corpus_en_heldout, see bench/speech.py), so many in ten streams, a pause of quiet noise in front
of each and at the end; each stream begins 100 ms behind the one before, so that their chunks are complete at different
moments. They are sent blocks of 100 ms, all of them before the next step, on a clock that counts blocks: nothing is
paced, so CPU is what the engine's thread needs, mel frames and detector included. Steps are counted per stream.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jiwer
import numpy as np

from bench import speech
from nemostream.core import Core
from nemostream.model import Model
from nemostream.models import catalog
from nemostream.protocol import SAMPLE_RATE, Close, Failed, Final, Open, Pushes, Samples
from nemostream.vad import Listener, Vad

STREAMS = 10
BLOCK = SAMPLE_RATE // 10


@dataclass(frozen=True, slots=True)
class Row:
    """Times in ms of CPU; `detector` is part of `cpu`."""

    chunk_ms: int
    pause: float
    gate: bool
    seconds: float
    wer: float
    steps: int
    cpu: float
    detector: float


class TimedVad:
    """Counts the CPU that the detector takes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._listen = Vad.listen

    def __enter__(self) -> TimedVad:
        def listen(vad: Vad, listeners: Sequence[Listener]) -> None:
            began = time.process_time()
            self._listen(vad, listeners)
            self.seconds += time.process_time() - began

        Vad.listen = listen  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *error: object) -> None:
        Vad.listen = self._listen  # type: ignore[method-assign]


def talks(clips: Sequence[speech.Clip], pause: float) -> tuple[list[Samples], list[str]]:
    """The audio of each stream and what is said in it."""
    rng = np.random.default_rng(0)
    audio, texts = [], []
    for i in range(STREAMS):
        own, quiet = clips[i::STREAMS], np.zeros(round(pause * SAMPLE_RATE), np.float32)
        talk = np.concatenate([quiet, *(part for clip in own for part in (clip.samples, quiet))])
        noise = rng.standard_normal(len(talk), np.float32) * np.float32(speech.NOISE)
        audio.append(talk + noise)
        texts.append(" ".join(clip.text for clip in own))
    return audio, texts


def measure(model: Model, chunk_ms: int, pause: float, gate: bool, clips: Sequence[speech.Clip]) -> Row:
    """One row of the table."""
    audio, texts = talks(clips, pause)
    now = 0.0
    core = Core(max_streams=STREAMS, peek=False, clock=lambda: now)
    core.add_model(None, model)
    for i in range(STREAMS):
        core.handle("bench", Open(i, chunk_ms=chunk_ms, skip_silence=gate))
    said: list[list[str]] = [[] for _ in range(STREAMS)]

    def run() -> None:
        while core.step():
            pass
        for event in core.take_events().get("bench", []):
            assert not isinstance(event, Failed), event
            if isinstance(event, Final) and event.text:
                said[event.stream].append(event.text)

    with TimedVad() as detector:
        run()
        began = time.process_time()
        for moment in range(0, max(map(len, audio)) + STREAMS * BLOCK, BLOCK):
            starts = {i: moment - i * BLOCK for i in range(STREAMS) if 0 <= moment - i * BLOCK < len(audio[i])}
            if starts:
                parts = [audio[i][start : start + BLOCK] for i, start in starts.items()]
                pushes = Pushes(list(starts), list(starts.values()), list(map(len, parts)), np.concatenate(parts))
                core.hear("bench", pushes)
            now += BLOCK / SAMPLE_RATE
            run()
        for i in range(STREAMS):
            core.handle("bench", Close(i))
        run()
        cpu = time.process_time() - began
    seconds = sum(map(len, audio)) / SAMPLE_RATE
    return Row(
        chunk_ms=chunk_ms,
        pause=pause,
        gate=gate,
        seconds=round(seconds, 1),
        wer=round(float(jiwer.wer(texts, [" ".join(parts) for parts in said])), 4),
        steps=round(core.stats()["mean_batch"] * core.stats()["encoder_calls"]),
        cpu=round(1000 * cpu / seconds, 3),
        detector=round(1000 * detector.seconds / seconds, 3),
    )


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--utterances", type=int, default=240)
    parser.add_argument("--pauses", type=numbers, default=[2.0, 10.0], help="seconds")
    parser.add_argument("--chunk-ms", type=numbers, default=[160.0, 1120.0])
    options = parser.parse_args()
    clips = speech.clips_with_text(options.utterances)
    model = Model.load(catalog.resolve(None), "int8", 1)
    rows: list[Row] = []
    print("| chunk | pauses | gate | WER | steps | saved | CPU, ms per stream-second | of it detector |")
    print("|---|---|---|---|---|---|---|---|")
    for chunk_ms in map(int, options.chunk_ms):
        for pause in options.pauses:
            for gate in (False, True):
                row = measure(model, chunk_ms, pause, gate, clips)
                rows.append(row)
                saved = f"{1 - row.steps / rows[-2].steps:.0%}" if gate else ""
                how = "on" if gate else "off"
                cells = [f"{chunk_ms} ms", f"{pause:g} s", how, f"{row.wer:.1%}", f"{row.steps}", saved]
                print(f"| {' | '.join(cells)} | {row.cpu:.2f} | {row.detector:.2f} |", flush=True)
    result = {
        "command": f"python -m bench.gate --utterances {options.utterances} "
        f"--pauses {','.join(f'{p:g}' for p in options.pauses)} "
        f"--chunk-ms {','.join(f'{c:g}' for c in options.chunk_ms)}",
        "model": model.bundle.info.name,
        "utterances": len(clips),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "rows": [asdict(row) for row in rows],
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

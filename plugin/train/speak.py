"""Speech to train on: sentences of text files, spoken by a synthesizer into shards of ten minutes.

python -m train.speak OUT --voice hibari --text sentences.txt glosses.txt --hours 10       # about 100 h per core-hour
python -m train.speak OUT --voice flite --text sentences.txt --hours 2

Each file gives the same share of sentences, whatever its length. A shard follows from the seed, the voice and its
number: one that stands is not made again. Hibari (Apache-2.0) is one voice, from PyPI (`hibari-tts`); Flite (a licence
like BSD's) has four, from Debian (`flite`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
import soxr
from tqdm import tqdm

from train.data import SAMPLE_RATE, Samples
from train.heldout import normalise

SHARD_S = 600.0
BIT_RATE = 20_000
SPEED = 0.85, 1.25
FLITE_VOICES = "awb", "kal16", "rms", "slt"
FLITE_HERTZ = 80, 220

Speak = Callable[[str, random.Random], tuple[Samples, str]]
"""A sentence -> (n,) samples at 16 kHz, and the voice's name."""


def hibari() -> Speak:
    from hibari import Hibari

    synthesizer = Hibari()

    def speak(text: str, rng: random.Random) -> tuple[Samples, str]:
        wave = np.asarray(synthesizer(text, speed=rng.uniform(*SPEED)), np.float32)
        return soxr.resample(wave, synthesizer.sample_rate, SAMPLE_RATE), "hibari"

    return speak


def flite() -> Speak:
    def speak(text: str, rng: random.Random) -> tuple[Samples, str]:
        voice, stretch, hertz = rng.choice(FLITE_VOICES), 1 / rng.uniform(*SPEED), rng.uniform(*FLITE_HERTZ)
        settings = ["--setf", f"duration_stretch={stretch:.2f}", "--setf", f"int_f0_target_mean={hertz:.0f}"]
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            subprocess.run(["flite", "-voice", voice, *settings, "-t", text, "-o", file.name], check=True)
            return _read(file.name), f"flite_{voice}"

    return speak


VOICES: dict[str, Callable[[], Speak]] = {"hibari": hibari, "flite": flite}


def make_shard(out: Path, voice: str, seed: int, index: int, texts: Sequence[Sequence[str]], seconds: float) -> None:
    rng, speak = random.Random(f"{seed}/{voice}/{index}"), VOICES[voice]()
    spoken: list[tuple[str, Samples, str]] = []
    samples = 0
    while samples < seconds * SAMPLE_RATE:
        text = rng.choice(rng.choice(texts))
        wave, name = speak(text, rng)
        loud = wave / max(1e-3, float(np.abs(wave).max())) * rng.uniform(0.2, 0.9)
        spoken.append((text, np.pad(loud, (800, 1600)).astype(np.float32), name))
        samples += len(spoken[-1][1])
    write_shard(out, index, spoken)


def write_shard(folder: Path, index: int, spoken: Sequence[tuple[str, Samples, str]]) -> None:
    """`folder`/NNNN.opus and NNNN.jsonl, which data.py reads: the sentences one behind the other, with their voices."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{index:04d}"
    rows, start = [], 0
    for text, wave, voice in spoken:
        times = {"start": start / SAMPLE_RATE, "duration": len(wave) / SAMPLE_RATE}
        rows.append({"audio": f"{name}.opus", **times, "text": normalise(text), "voice": voice})
        start += len(wave)
    pcm = (np.concatenate([wave for _, wave, _ in spoken]) * 32767).astype(np.int16)
    with av.open(str(folder / f"{name}.opus"), "w", format="ogg") as box:
        stream = box.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = BIT_RATE
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
    # Last, and in one piece: a shard is there when its sentences are.
    partial = folder / f"{name}.partial"
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(partial, folder / f"{name}.jsonl")


def _read(path: str) -> Samples:
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    with av.open(path) as box:
        frames = [part for frame in box.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([part.to_ndarray().ravel() for part in [*frames, *resampler.resample(None)]])


def main() -> None:
    parser = argparse.ArgumentParser(prog="train.speak", description="Speech to train on, from text files.")
    parser.add_argument("out", type=Path, help="folder of the shards")
    parser.add_argument("--voice", choices=VOICES, required=True)
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="files with a sentence in each line")
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.voice == "flite" and not shutil.which("flite"):
        sys.exit("Flite is missing: apt install flite.")
    try:
        texts = [[line for line in path.read_text(encoding="utf-8").splitlines() if line] for path in args.text]
    except OSError as error:
        sys.exit(str(error))
    if empty := [str(path) for path, lines in zip(args.text, texts, strict=True) if not lines]:
        sys.exit(f"{', '.join(empty)}: no sentence; give files with one in each line.")
    seconds = min(SHARD_S, args.hours * 3600)
    indices = [i for i in range(round(args.hours * 3600 / seconds)) if not (args.out / f"{i:04d}.jsonl").exists()]
    with ProcessPoolExecutor(args.workers) as pool, tqdm(total=len(indices), unit="shard") as bar:
        made = [pool.submit(make_shard, args.out, args.voice, args.seed, i, texts, seconds) for i in indices]
        for shard in made:
            shard.result()
            bar.update()


if __name__ == "__main__":
    main()

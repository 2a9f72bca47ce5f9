"""A small run by the documented command, and what its model writes: from the .nemo offline, and as streams."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.accuracy import manifest
from bench.accuracy.edits import Edits
from nemostream.greedy import RnntDecoder, Token
from nemostream.model import Model
from nemostream.models.checkpoint import FILTERS, WINDOW, read_checkpoint
from nemostream.models.convert import decoder_weights
from nemostream.protocol import SAMPLE_RATE, Samples
from tests.engine.driver import Driver
from train.features import LogMel

SPEECH = Path(__file__).parent / "speech"
LOOKAHEAD = 6
CHUNK_MS = 80 * (LOOKAHEAD + 1)
SILENCE_SAMPLES = SAMPLE_RATE


PLUGIN = SPEECH.parents[2] / "plugin"


def small_run(out: Path, *options: str, launcher: Sequence[str] = ()) -> str:
    """The command of docs/training.md, in a folder of its own; what it prints. `launcher`: Python's options before."""
    speech = ["--data", str(SPEECH), "--held-out", str(SPEECH / "held_out.txt")]
    train = "-m", "train", "--small", "--init", "train/start.nemo", "--out", str(out)
    command = [sys.executable, *launcher, *train, *speech]
    done = subprocess.run([*command, *options], cwd=PLUGIN, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(out: Path, name: str) -> list[float]:
    """Those that the run has written down, in their order."""
    rows = json.loads((out / "history.json").read_text())["train"]
    return [row[name] for row in rows if name in row]


def convert(nemo: Path, out: Path) -> Path:
    """By its command, in both precisions."""
    subprocess.run([sys.executable, "-m", "nemostream", "convert", str(nemo), str(out)], check=True)
    return out


def clips(count: int) -> tuple[list[str], list[Samples]]:
    """The first sentences, and their sound with a second of silence behind."""
    found = manifest.read(SPEECH)[:count]
    return [clip.text for clip in found], [np.pad(clip.samples, (0, SILENCE_SAMPLES)) for clip in found]


@torch.no_grad()
def offline(nemo: Path, sounds: Sequence[Samples]) -> list[str]:
    """Greedy RNN-T over each whole sound, in float32, as the checkpoint has it."""
    checkpoint = read_checkpoint(nemo)
    model = checkpoint.model().eval()
    config = checkpoint.config
    assert config.transducer is not None
    mel = LogMel(config.mel, checkpoint.state[FILTERS], checkpoint.state[WINDOW])
    decoder = RnntDecoder(decoder_weights(checkpoint, model), config.transducer.max_symbols, 1)
    texts = []
    for sound in sounds:
        features = mel(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
        encoded, frames = model.encoder(*features, LOOKAHEAD)
        decoder.reset(0)
        (tokens,) = decoder.step(np.arange(1), encoded.numpy(), frames.numpy().astype(np.intp))
        texts.append(_text(config.tokens, tokens))
    return texts


def streamed(bundle: Path, precision: str, sounds: Sequence[Samples]) -> list[str]:
    """Every sound as a stream of the engine, all of them in one batch."""
    model = Model.load(bundle, precision, 1)
    driver = Driver(model, max_streams=len(sounds), chunk_ms=CHUNK_MS, decoder="rnnt")
    for stream, sound in enumerate(sounds):
        driver.open(stream)
        driver.push(stream, sound, run=False)
    driver.run()
    for stream in range(len(sounds)):
        driver.close(stream)
    return [_text(model.bundle.tokens, driver.tokens[stream]) for stream in range(len(sounds))]


def _text(pieces: Sequence[str], tokens: Sequence[Token]) -> str:
    """Joined as they are. The engine's own text parts a word whose pieces are 400 ms apart, as those of what was learnt
    by heart may be."""
    return "".join(pieces[token.id] for token in tokens).replace("▁", " ").strip()


def word_error_rate(said: Sequence[str], found: Sequence[str]) -> float:
    edits = Edits.of(said, found)
    return float(edits.word_errors.sum() / edits.words.sum())

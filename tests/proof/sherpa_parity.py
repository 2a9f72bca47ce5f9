"""A sherpa-onnx folder gives the text that sherpa-onnx itself gives of it, but for what differs by design.

That is the front end (NeMo's here, kaldi's there) and the first chunk. sherpa-onnx has an environment of its own in
.cache/peers, which python -m bench.peers makes.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from bench.peers.files import CACHE
from nemostream.protocol import Samples
from tests.conftest import DATA
from tests.engine.driver import Driver, load
from tests.sherpa import write_sherpa
from tests.speech import utterance

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    "plugin/nemostream/greedy_onnx.py",
    "plugin/nemostream/encoders/sherpa.py",
    "plugin/nemostream/models/sherpa.py",
    "plugin/nemostream/mel.py",
    "tests/sherpa.py",
]
FIRST_SEED, UTTERANCES = 5000, 100
EQUAL = 0.9


def run() -> dict[str, object]:
    """Utterances of the toy language in both precisions; how many texts are equal, and how many each side has right."""
    said = [utterance(FIRST_SEED + u) for u in range(UTTERANCES)]
    right = [" ".join(words) for words, _ in said]
    counts: dict[str, object] = {"utterances": UTTERANCES}
    with tempfile.TemporaryDirectory() as work:
        folder = write_sherpa(Path(work), DATA / "toy.nemo", int8=True)
        np.savez(folder / "samples.npz", *(samples for _, samples in said))
        for precision, suffix in (("fp32", ""), ("int8", ".int8")):
            command = [CACHE / "bin" / "python", ROOT / "tests" / "proof" / "sherpa_side.py", folder, suffix]
            done = subprocess.run([*command, folder / "samples.npz"], capture_output=True, text=True, check=True)
            theirs = done.stdout.split("\n")[:UTTERANCES]
            ours = texts(folder, precision, [samples for _, samples in said])
            equal = matches(ours, theirs)
            counts[precision] = {
                "equal": equal,
                "ours_right": matches(ours, right),
                "theirs_right": matches(theirs, right),
            }
            print(f"  {precision}: {counts[precision]}", flush=True)
            assert equal >= EQUAL * UTTERANCES
            assert matches(ours, right) >= matches(theirs, right)
    return counts


def texts(folder: Path, precision: str, audio: list[Samples]) -> list[str]:
    """All streams at once."""
    driver = Driver(load(folder, precision), max_streams=len(audio))
    for u, samples in enumerate(audio):
        driver.open(u)
        driver.push(u, samples, run=False)
    driver.run()
    for u in range(len(audio)):
        driver.close(u)
    return [driver.text(u) for u in range(len(audio))]


def matches(left: list[str], right: list[str]) -> int:
    return sum(a == b for a, b in zip(left, right, strict=True))

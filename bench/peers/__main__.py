"""python -m bench.peers: the comparison with sherpa-onnx and NeMo; the package says how it is made."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import random_model
from bench.peers import clips, report
from bench.peers.contender import Failed
from bench.peers.files import CACHE, CHUNKS_MS, ROOT, Missing, prepare, pythons
from bench.peers.rounds import Heard, compare
from nemostream.machine import processor
from tests.proof.__main__ import source_hash

SOURCES = ["plugin/nemostream/*.py", "plugin/nemostream/encoders/*.py", "plugin/nemostream/models/*.py"]
SOURCES += ["bench/peers/*.py", "bench/peers/sides/*.py", "bench/random_*.py"]


@dataclass(frozen=True)
class Subject:
    """A model under comparison. `clips`: sentences that are transcribed; `speaks`: its text means something."""

    title: str
    clips: int
    speaks: bool


SUBJECTS = {
    "embedded": Subject("The embedded model", 96, True),
    "114m": Subject("FastConformer of 114 M parameters, random weights", 4, False),
}


def nemo_file(model: str) -> Path:
    """The checkpoint; the large one's random weights are drawn on first use."""
    if model == "embedded":
        return ROOT / "plugin" / "train" / "start.nemo"
    drawn = CACHE / "models" / f"{model}-{source_hash(['bench/random_*.py'])}.nemo"
    if not drawn.is_file():
        say(f"drawing weights of {model}")
        drawn.parent.mkdir(parents=True, exist_ok=True)
        random_model.write("fastconformer-114m", drawn)
    return drawn


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured."""
    python = pythons(say)
    found: dict[str, report.Chunks] = {}
    heard_from = ""
    for model in options.model:
        subject = SUBJECTS[model]
        files = prepare(nemo_file(model), python, say)
        with tempfile.TemporaryDirectory() as folder:
            heard_from, sentences = clips.held_out(subject.clips)
            talk, said = Path(folder) / "talk.npy", Path(folder) / "clips.npz"
            np.save(talk, clips.talk(sentences))
            np.savez(said, *[clip.heard for clip in sentences])
            texts = [clip.text for clip in sentences] if subject.speaks else None
            heard = Heard(str(talk), str(said), texts)
            found[model] = {
                str(chunk): compare(files, heard, chunk, options.rounds, options.cpu, python, say)
                for chunk in options.chunk
            }
    named = "114m" if "114m" in found else next(iter(found))
    return {
        "command": shlex.join(["python", "-m", "bench.peers", *sys.argv[1:]]),
        "made": time.strftime("%Y-%m-%d"),
        "source": source_hash(SOURCES),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "instructions": instructions()},
        "rounds": options.rounds,
        "speech": heard_from,
        "ratios_of": named,
        **report.ratios(found[named]),
        "models": {model: {**report.ratios(chunks), "chunks": chunks} for model, chunks in found.items()},
    }


def instructions() -> list[str]:
    """Of the processor's, those that decide how fast products of int8 are."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return sorted(flags & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contender, alternating")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go; the picture beside it as .png")
    parser.add_argument("--model", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--chunk", nargs="+", type=int, choices=CHUNKS_MS, default=list(CHUNKS_MS), help="in ms")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)), help="the core that all stay on")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if options.cpu not in os.sched_getaffinity(0):
        parser.error(f"there is no core {options.cpu}; choose one of {sorted(os.sched_getaffinity(0))}")
    try:
        result = run(options)
    except (Missing, Failed) as error:
        sys.exit(str(error))
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    chunks = {model: held["chunks"] for model, held in result["models"].items()}
    titles = {SUBJECTS[model].title: held for model, held in chunks.items()}
    report.picture(options.json.with_suffix(".png"), result["machine"]["cpu"], titles)
    print("\n\n".join(report.tables(title, held) for title, held in titles.items()))


if __name__ == "__main__":
    main()

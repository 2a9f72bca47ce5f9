"""What one GPU carries: python -m bench.gpu SECTION ... --out results

python -m bench.gpu --out results                    # all sections that are not in results/ yet, while there is time
python -m bench.gpu roofline sweep-160 --out results # these
python -m bench.gpu report --out results             # what was found so far, as tables
python -m bench.gpu --cpu --out results              # the same at small sizes, to see that it runs

torch and numpy are all it needs. A section that has begun is finished; none begins after --seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu import anatomy, report, speech
from bench.gpu.baseline import baseline
from bench.gpu.models import Source, drawn, embedded
from bench.gpu.parity import parity
from bench.gpu.plan import CPU, GPU, Plan
from bench.gpu.sweep import sweep
from nemostream.protocol import Samples

TALK_SECONDS = 120.0
Section = Callable[[Plan, Source, Samples], Any]


def sections(plan: Plan) -> dict[str, Section]:
    """In the order in which they run."""
    found: dict[str, Section] = {f"parity-{shape}": parity for shape in plan.parity_shapes}
    found |= {f"sweep-{chunk}": partial(_sweep, chunk_ms=chunk) for chunk in plan.chunks_ms}
    return {
        **found,
        "roofline": anatomy.roofline,
        "parts": anatomy.parts,
        "baseline": baseline,
        "memory": anatomy.memory,
    }


def _sweep(plan: Plan, source: Source, talk: Samples, chunk_ms: int) -> Any:
    return sweep(plan, source, talk, chunk_ms)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="default: all that are not there yet; or report")
    parser.add_argument("--out", type=Path, default=Path("results"), help="a folder, one JSON for each section")
    parser.add_argument("--cpu", action="store_true", help="small sizes on the CPU: not a measurement")
    parser.add_argument("--speech", type=Path, help="clips that bench.gpu.speech took along; default: tones")
    parser.add_argument("--seconds", type=float, default=400.0, help="after which no section begins")
    options = parser.parse_args(given)
    known = {*sections(CPU if options.cpu else GPU), "report"}
    if unknown := [name for name in options.sections if name not in known]:
        parser.error(f"no section {unknown[0]}; there are {', '.join(sorted(known))}")
    return options


def main(given: Sequence[str] | None = None) -> None:
    options = arguments(given)
    plan, began = CPU if options.cpu else GPU, time.monotonic()
    if options.sections != ["report"]:
        sources: dict[str, Source] = {}
        there = report.read(options.out) if options.out.is_dir() else {}
        for name, section in sections(plan).items():
            if name not in options.sections if options.sections else name in there:
                continue
            if time.monotonic() - began > options.seconds:
                print(f"no time left for {name}", flush=True)
                break
            shape = name.partition("-")[2] if name.startswith("parity-") else plan.shape
            if shape not in sources:
                sources = {shape: embedded() if shape == "embedded" else drawn(shape)}  # one at a time in memory
            started = time.monotonic()
            found = section(plan, sources[shape], _talk(options.speech if shape == "embedded" else None))
            path = report.write(options.out, name, found, time.monotonic() - started)
            print(f"{path} ({time.monotonic() - started:.0f} s)", flush=True)
    print(report.text(report.read(options.out)))


def _talk(clips: Path | None) -> Samples:
    """What all streams hear, each from another place on."""
    if clips is None:
        return speech.tones(7, TALK_SECONDS, share=0.8)
    talk: Samples = np.concatenate(speech.read(clips))
    return talk


if __name__ == "__main__":
    main()

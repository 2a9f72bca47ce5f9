"""One process that holds one side: asked by lines of JSON on stdin, it answers with lines of JSON on stdout.

python -m bench.peers.worker TASK          # TASK: sides.Task as JSON
{"measure": {"streams": 16, "seconds": 1.0, "least": 3}}    {"transcribe": {"batch": 16}}

Imports nothing of ours but bench.peers.sides, so that it runs in every side's environment.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import statistics
import sys
from pathlib import Path

import numpy as np

from bench.peers.sides import Clock, Reply, Samples, Side, Task, Took

CLASSES = {"ours": "Ours", "sherpa": "Sherpa", "nemo": "Nemo"}


def load(task: Task) -> Side:
    """The side of that task."""
    module = importlib.import_module(f"bench.peers.sides.{task.side}")
    side: Side = getattr(module, CLASSES[task.side])(task, np.load(task.talk))
    return side


def measure(side: Side, streams: int, seconds: float, least: int) -> Reply:
    """Steps of so many new streams until they took `seconds` of CPU, `least` of them at the least.

    Returns the median step in ms of CPU time, and of time passed; what a chunk's features take for one stream, in ms of
    CPU time; how many steps; what share of the time this process had the core; and the most memory it ever had.
    """
    side.open(streams)
    side.step()  # buffers of this size are made; NeMo's first chunk is another
    steps: list[Took] = []
    clock = Clock()
    while len(steps) < least or clock.cpu < seconds:
        steps.append(side.step())
    share = clock.cpu / clock.passed
    return {
        "step_ms": round(1e3 * statistics.median(took.step for took in steps), 3),
        "passed_ms": round(1e3 * statistics.median(took.passed for took in steps), 3),
        "features_ms": round(1e3 * statistics.median(took.features for took in steps) / streams, 4),
        "steps": len(steps),
        "core_share": round(share, 3),
        "peak_mb": peak_mb(),
    }


def transcribe(side: Side, clips: list[Samples], batch: int) -> Reply:
    """The texts of all clips, so many at a time."""
    texts: list[str] = []
    for begin in range(0, len(clips), batch):
        texts += side.transcribe(clips[begin : begin + batch])
    return {"texts": texts}


def peak_mb() -> float:
    """The largest resident set of this process so far. Not ru_maxrss, which counts what its parent had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return round(int(found[1]) / 1024, 1)


def stay_on(cpu: int) -> None:
    """All threads of this process on one core: so whoever has more of them gains nothing."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {cpu})


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    # Whatever the sides print is not an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    side = load(task)
    stay_on(task.cpu)
    print(json.dumps({"versions": side.versions, "peak_mb": peak_mb()}), file=answers, flush=True)
    for line in sys.stdin:
        ((name, arguments),) = json.loads(line).items()
        if name == "measure":
            reply = measure(side, **arguments)
        else:
            held = np.load(task.clips)
            reply = transcribe(side, [held[key] for key in held.files], **arguments)
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()

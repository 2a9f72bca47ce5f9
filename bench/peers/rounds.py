"""One model at one chunk size: every contender at every batch size once, then rounds at each one's best."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass

from bench.peers.contender import CONTENDERS, OURS_FP32, Contender, Process
from bench.peers.files import Files, Pythons, Say
from bench.peers.sides import Reply, Task
from bench.peers.words import error_rate

BATCHES = (1, 2, 4, 8, 16, 32)
SWEEP_SECONDS, SWEEP_STEPS = 0.3, 1
ROUND_SECONDS, ROUND_STEPS = 0.5, 2
"""A measurement lasts so long, and so many steps at the least."""
TEXT_BATCH = 16
BUSY = 0.95
"""A contender that had less of its core was disturbed."""


@dataclass(frozen=True)
class Heard:
    """What is heard: files for the workers, and what the clips say (None: the model's text means nothing)."""

    talk: str
    clips: str
    texts: list[str] | None


def compare(files: Files, heard: Heard, chunk_ms: int, rounds: int, cpu: int, python: Pythons, say: Say) -> Reply:
    """All figures of that chunk size, by contender."""
    with ExitStack() as stack:
        processes: dict[Contender, Process] = {}
        for contender in CONTENDERS:
            path = str(contender.files(files, chunk_ms).resolve())
            task = Task(contender.side, contender.precision, path, chunk_ms, heard.talk, heard.clips, cpu)
            processes[contender] = Process(contender, task, python)
            stack.callback(processes[contender].close)
        loaded = {contender: process.ready() for contender, process in processes.items()}
        sweep = {contender: _sweep(process, chunk_ms, say) for contender, process in processes.items()}
        best = {contender: _best(sizes) for contender, sizes in sweep.items()}
        measured: dict[Contender, list[Reply]] = {contender: [] for contender in CONTENDERS}
        for round_ in range(rounds):
            for contender in CONTENDERS if round_ % 2 == 0 else CONTENDERS[::-1]:
                measured[contender].append(_round(processes[contender], chunk_ms, best[contender]))
                say(_line(f"{chunk_ms} ms, round {round_ + 1}", contender, measured[contender][-1]))
        texts = {}
        for contender, process in processes.items():
            texts[contender] = process.transcribe(TEXT_BATCH)
            say(f"{chunk_ms} ms, text of {contender.name}: {texts[contender][0][:60]!r}")
    return {
        contender.name: {
            "versions": loaded[contender]["versions"],
            "best_batch": best[contender],
            "streams_per_core": _spread([r["streams"] for r in measured[contender]]),
            "step_at_batch_1_ms": _spread([r["alone"]["passed_ms"] for r in measured[contender]]),
            "features_ms": statistics.median(r["features_ms"] for r in measured[contender]),
            "peak_mb": {
                "loaded": loaded[contender]["peak_mb"],
                **{str(batch): sweep[contender][batch]["peak_mb"] for batch in (BATCHES[0], BATCHES[-1])},
            },
            "wer": None if heard.texts is None else error_rate(heard.texts, texts[contender]),
            "words_as_ours_fp32": round(max(0.0, 1 - error_rate(texts[OURS_FP32], texts[contender])), 4),
            "letters": sum(map(len, texts[contender])),
            "sweep": sweep[contender],
            "rounds": measured[contender],
        }
        for contender in CONTENDERS
    }


def _sweep(process: Process, chunk_ms: int, say: Say) -> dict[int, Reply]:
    found = {}
    for batch in BATCHES:
        found[batch] = _with_streams(process.measure(batch, SWEEP_SECONDS, SWEEP_STEPS), batch, chunk_ms)
        say(_line(f"{chunk_ms} ms, batch {batch}", process.contender, found[batch]))
    return found


def _best(sizes: dict[int, Reply]) -> int:
    """The batch size with the most streams."""
    return max(sizes, key=lambda batch: float(sizes[batch]["streams"]))


def _round(process: Process, chunk_ms: int, batch: int) -> Reply:
    """A round's figures at that batch size, and under "alone" those of one stream."""
    alone = process.measure(1, ROUND_SECONDS, ROUND_STEPS)
    together = alone if batch == 1 else process.measure(batch, ROUND_SECONDS, ROUND_STEPS)
    return _with_streams(together, batch, chunk_ms) | {"alone": alone}


def _with_streams(reply: Reply, batch: int, chunk_ms: int) -> Reply:
    return {"streams": round(batch * chunk_ms / reply["step_ms"], 3), **reply}


def _spread(values: list[float]) -> dict[str, float]:
    kinds = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {kind: round(value, 3) for kind, value in kinds.items()}


def _line(what: str, contender: Contender, reply: Reply) -> str:
    busy = "" if reply["core_share"] >= BUSY else f" (disturbed: {reply['core_share']:.0%} of the core)"
    return f"{what}: {contender.name} {reply['streams']:.1f} streams, {reply['step_ms']:.1f} ms a step{busy}"

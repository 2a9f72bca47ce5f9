"""What a step costs against the size of its batch, in process, all rows full and no step capped.

python -m bench.engine --batches 1,2,4,8 --uncapped --chunk-ms 160

Each size runs in a process of its own (python -m bench.engine.batches JOB.json), so that its memory is its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from bench.engine.agreement import Agreement, agreement, placed
from bench.engine.audio import Load
from bench.engine.processes import rss_mb
from nemostream import blas, work
from nemostream.errors import StepFailed
from nemostream.feed import Feed
from nemostream.group import Group
from nemostream.inbox import Options
from nemostream.model import Model
from nemostream.protocol import NO_ENDPOINT
from nemostream.scheduler import Slot
from nemostream.work import Work

SETTLED = 2
"""Steps at the beginning that are not counted: they make buffers."""

COMPARED = 8
"""Streams whose tokens are compared with what they say alone."""


@dataclass(frozen=True, slots=True)
class Job:
    """`steps` chunks of streams 0 .. `rows` - 1; `alone`: one stream after the other instead of all in each step."""

    path: str
    precision: str | None
    threads: int | None
    encoder: Literal["onnx", "null"]
    rows: int
    chunk_ms: int
    steps: int
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """One size. Times in ms, of all steps but the first two; `stream_mb`: by how much the process grew from the loaded
    model to the end, by row; `tokens`: of the first streams, (frame, id) each; `reference`: the precision of what they
    were compared with."""

    rows: int
    chunk_ms: int
    step_p50: float
    step_p95: float
    per_stream: float
    stream_mb: float
    tokens: list[list[tuple[int, int]]]
    agreement: Agreement | None = None
    reference: str = ""


def run(job: Job) -> Batch:
    """In this process."""
    model = Model.load(Path(job.path), job.precision, job.threads, job.encoder)
    batches = [[stream] for stream in range(job.rows)] if job.alone else [list(range(job.rows))]
    before = rss_mb(os.getpid())
    took: list[float] = []
    tokens: list[list[tuple[int, int]]] = []
    with blas.one_thread():
        for streams in batches:
            times, found = _run(model, job, streams)
            took += times[SETTLED:]
            tokens += found
    median = float(np.percentile(took, 50))
    return Batch(
        rows=job.rows,
        chunk_ms=job.chunk_ms,
        step_p50=median,
        step_p95=float(np.percentile(took, 95)),
        per_stream=median / len(batches[0]),
        stream_mb=(rss_mb(os.getpid()) - before) / job.rows,
        tokens=tokens[:COMPARED],
    )


def _run(model: Model, job: Job, streams: list[int]) -> tuple[list[float], list[list[tuple[int, int]]]]:
    """One batch: ms of each step, tokens of each stream."""
    frames = model.chunk_frames(job.chunk_ms)
    load = Load(len(streams), job.chunk_ms, job.chunk_ms, (job.steps + 1) * job.chunk_ms / 1000)
    feeds = [Feed(model.mel, frames, Options(NO_ENDPOINT)) for _ in streams]
    for stream, feed in zip(streams, feeds, strict=True):
        feed.push(load.samples(stream))
    group = Group("batch", model, frames, len(streams))
    for row in range(len(streams)):
        group.take(row, model.decoder_name(None), Slot())
    took: list[float] = []
    tokens: list[list[tuple[int, int]]] = [[] for _ in streams]
    for step in range(job.steps):
        windows = [window for feed in feeds if (window := feed.chunk()) is not None]
        batch = work.Batch.of(range(len(streams)), [Work(window, frames, first=step == 0) for window in windows])
        began = time.perf_counter()
        outcomes = group.run(batch, len(streams))
        took.append(1000 * (time.perf_counter() - began))
        for feed in feeds:
            feed.take_chunk()
        for mine, outcome in zip(tokens, outcomes, strict=True):
            if isinstance(outcome, StepFailed):
                raise outcome
            mine += [(step * frames + token.frame, token.id) for token in outcome]
    return took, tokens


def sweep(job: Job, sizes: list[int], reference: str) -> Iterator[Batch]:
    """Every size in a process of its own, and how its tokens agree with streams that are alone in precision
    `reference`.

    Raises:
        RuntimeError: a process failed; the message holds the end of what it wrote.
    """
    compared = min(COMPARED, max(sizes))
    alone = _spawned(replace(job, rows=compared, precision=reference, threads=1, alone=True)).tokens
    for rows in sizes:
        batch = _spawned(replace(job, rows=rows))
        pairs = [(placed(a), placed(b)) for a, b in zip(alone, batch.tokens, strict=False)]
        yield replace(batch, agreement=agreement(pairs), reference=reference)


HEADING = (
    "| chunk ms | batch | step ms p50 p95 | ms a stream | MB a stream | equal streams | equal tokens |\n"
    "|---|---|---|---|---|---|---|"
)


def line(batch: Batch) -> str:
    """A row of the table."""
    agreed = batch.agreement
    assert agreed is not None, "a row without agreement is not printed"
    return (
        f"| {batch.chunk_ms} | {batch.rows} | {batch.step_p50:.2f} {batch.step_p95:.2f} | {batch.per_stream:.3f} "
        f"| {batch.stream_mb:.2f} | {agreed.streams_equal:.0%} of {agreed.streams} "
        f"| {agreed.tokens_equal:.2%} of {agreed.tokens} ({batch.reference}) |"
    )


def _spawned(job: Job) -> Batch:
    with tempfile.NamedTemporaryFile("wb", suffix=".json") as file:
        file.write(msgspec.json.encode(job))
        file.flush()
        command = [sys.executable, "-m", "bench.engine.batches", file.name]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a batch of {job.rows} failed: {done.stderr.strip()[-500:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Batch)


if __name__ == "__main__":
    print(json.dumps(msgspec.to_builtins(run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)))))

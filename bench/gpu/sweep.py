"""Paced streams in real time on one group: samples come in when a chunk is complete, steps run as the scheduler has
them, and how long each stream waits for what its chunk says is what counts.

Rows, windows, staging, device and tokens are those of the engine; its messages, and what makes events of tokens, are
not here (bench.engine measures them with --encoder null).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from bench.gpu.models import OnDevice, Source
from bench.gpu.plan import Plan
from bench.gpu.rows import Talk, agreement
from nemostream.device.group import DeviceGroup
from nemostream.errors import EngineFull
from nemostream.protocol import Samples

SETTLED = 0.2
"""Of the time of a row of the table, from its beginning, that does not count."""
COMPARED = 4
"""Streams whose tokens are compared with what they say alone, in float32."""
PATIENCE = 0.5
"""Of a chunk, for which a step waits for more rows (scheduler.py, from 32 rows on)."""


def sweep(plan: Plan, source: Source, talk: Samples, chunk_ms: int) -> list[dict[str, Any]]:
    """A row for each number of streams until one does not hold: a response of 95 in 100 chunks within a chunk."""
    rows: list[dict[str, Any]] = []
    group, model = _largest(plan, source, chunk_ms)
    reference = source.on(plan.device, "fp32").group(chunk_ms // 80, COMPARED)
    for streams in plan.streams[chunk_ms]:
        carried = min(streams, group.rows.capacity)
        found = paced(group, carried, talk, plan.seconds, reference)
        row = {"chunk_ms": chunk_ms, "streams": carried, "refused": streams - carried, **found}
        row["row_mb"] = group._state.row_bytes / 1e6
        row["holds"] = row["response_p95_ms"] <= chunk_ms and not row["failed"]
        rows.append(row)
        if not row["holds"] or carried < streams:
            break
    del model
    return rows


def _largest(plan: Plan, source: Source, chunk_ms: int) -> tuple[DeviceGroup, OnDevice]:
    """As many rows as the plan wants, or as fit."""
    model = source.on(plan.device, plan.precision)
    for streams in reversed(plan.streams[chunk_ms]):
        try:
            return model.group(chunk_ms // 80, streams), model
        except EngineFull:
            if plan.device == "cuda":
                torch.cuda.empty_cache()
    raise EngineFull(f"the device has no memory for {plan.streams[chunk_ms][0]} rows", 0.0)


def paced(group: DeviceGroup, streams: int, talk: Samples, seconds: float, reference: DeviceGroup) -> dict[str, Any]:
    """Streams of any phase for so many seconds; what they waited for, and what was late."""
    its = Talk(group, streams, talk)
    chunk = its.step_samples / 16000
    rng = np.random.RandomState(1)
    rows, started = np.arange(streams), time.perf_counter() + 0.05
    # A stream's first chunk is shorter than the others (Lanes): all of them hear one before the clock runs.
    its.hear(rows)
    its.step(rows[group.lanes.ready(rows)])
    due = started + chunk * rng.rand(streams)
    end, settled = started + seconds, started + SETTLED * seconds
    responses: list[Any] = []
    batches: list[int] = []
    busy = 0.0
    while (now := time.perf_counter()) < end:
        ready = np.flatnonzero(due <= now)
        oldest = due.min()
        if len(ready) < streams and now < oldest + PATIENCE * chunk:
            time.sleep(max(0.0, min(oldest + PATIENCE * chunk, due.max()) - now))
            continue
        its.hear(ready)
        its.step(ready)
        done = time.perf_counter()
        if now >= settled:
            responses.append(done - due[ready])
            batches.append(len(ready))
            busy += done - now
        due[ready] += chunk
    late = np.concatenate(responses)
    p50, p95, p99 = (float(x) for x in np.percentile(late * 1000, (50, 95, 99)))
    return {
        "response_p50_ms": p50,
        "response_p95_ms": p95,
        "response_p99_ms": p99,
        "late": int((late > chunk).sum()),
        "chunks": len(late),
        "mean_batch": float(np.mean(batches)),
        "busy": busy / (end - settled),
        "failed": its.failed,
        "tokens": sum(map(len, its.said)),
        "agreement": _agreement(its, talk, reference),
    }


def _agreement(its: Talk, talk: Samples, reference: DeviceGroup) -> float:
    """Of COMPARED streams with what they say without company and without a clock."""
    count = min(COMPARED, its.streams)
    alone = Talk(reference, count, talk)
    chunks = its.group.lanes.chunks[:count]
    alone.run(int(chunks.max()) + 1)
    frames = its.group.chunk_frames
    expected = [[t for t in alone.said[i] if t[1] < chunks[i] * frames] for i in range(count)]
    return float(np.mean([agreement(its.said[i], expected[i]) for i in range(count)]))

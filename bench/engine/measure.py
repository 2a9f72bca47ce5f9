"""From one run to one row: responses, steps, agreement, distance to the roofline.

meter = Meter(path, EngineConfig(...), clients=2, local=False, compared=16)
row = meter.row(Load(streams=32, chunk_ms=160, block_ms=80, seconds=10))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.engine import roofline
from bench.engine.agreement import Agreement, Placed, Reference, agreement, placed
from bench.engine.audio import Load
from bench.engine.processes import Result, run
from bench.engine.row import Array, Row, percentile, slope
from nemostream.engine_config import EngineConfig
from nemostream.models.bundle import load_bundle
from nemostream.models.info import ModelInfo


@dataclass
class Meter:
    """`compared`: streams of a row whose tokens are compared with what each says alone; 0: all of them."""

    path: Path
    engine: EngineConfig
    clients: int = 2
    local: bool = False
    compared: int = 16
    reference: Reference = field(init=False)

    def __post_init__(self) -> None:
        self.reference = Reference(self.path, self.engine.encoder)

    @cached_property
    def info(self) -> ModelInfo:
        return load_bundle(self.path).info

    @cached_property
    def precision(self) -> str:
        held = self.info.precisions
        return self.engine.precision or ("int8" if "int8" in held else held[0])

    @cached_property
    def peaks(self) -> roofline.Peaks:
        """Of this machine, measured once, before the first row."""
        return roofline.measure(self.engine.threads)

    def row(self, load: Load, round_: int = 0) -> Row:
        """Run `load`. Raises RuntimeError: a process ended early."""
        peaks = self.peaks
        result = run(load, self.engine, self.clients, self.local)
        steps = _between(result.steps, 0, result)
        times, response = responses(load, result)
        if not len(response) or not len(steps):
            raise RuntimeError(f"of {load.streams} streams no chunk was run; give more --seconds or fewer --streams")
        flushes = np.array([ms for report in result.reports for ms in report.flush_ms])
        seconds = result.ended - result.began
        batch = float(steps[:, 2].mean())
        median = percentile(steps[:, 1] * 1000, 50)
        least = self._work(load, round(float(steps[:, 3].mean()))).seconds(peaks)
        return Row(
            streams=load.streams,
            chunk_ms=load.chunk_ms,
            round=round_,
            step_p50=median,
            step_p95=percentile(steps[:, 1] * 1000, 95),
            step_p99=percentile(steps[:, 1] * 1000, 99),
            response_p50=percentile(response, 50),
            response_p95=percentile(response, 95),
            response_p99=percentile(response, 99),
            flush_p50=percentile(flushes, 50),
            flush_p95=percentile(flushes, 95),
            drift=slope(times, response),
            mean_batch=batch,
            chunks=len(response),
            late=int((response > load.chunk_ms).sum()),
            refused=sum(report.refused for report in result.reports),
            failed=sum(report.failed for report in result.reports),
            unanswered=sum(report.unanswered for report in result.reports),
            why=next((report.why for report in result.reports if report.why), ""),
            agreement=self._agreement(load, result),
            reference=self.reference.precision,
            engine_cpu=result.engine_cpu / (load.streams * seconds),
            client_cpu=result.client_cpu / (load.streams * seconds),
            client_lag_p99=max(report.lag_ms[0] for report in result.reports),
            rss_mb=result.rss_mb,
            roofline=1000 * least / median if self.engine.encoder == "onnx" else float("nan"),
            seconds=seconds,
        )

    def _work(self, load: Load, rows: int) -> roofline.Work:
        frame_ms = self.info.frame_samples // 16
        return roofline.step_work(self.info, load.chunk_ms // frame_ms, rows, self.precision)

    def _agreement(self, load: Load, result: Result) -> Agreement:
        count = min(self.compared or load.streams, load.streams)
        found = tokens_of(result)
        pairs: list[tuple[Placed, Placed]] = []
        for stream in (i * load.streams // count for i in range(count)):
            alone = self.reference.tokens(stream, load.samples(stream), load.chunk_ms)
            pairs.append((alone, found.get(result.owners[stream], frozenset())))
        return agreement(pairs)


def responses(load: Load, result: Result) -> tuple[Array, Array]:
    """When each counted chunk's last sample was sent (s), and ms from there to its events. A chunk that was never run
    counts as answered when the last one was: what the engine did not get done must not look like less to do."""
    order = {owner: stream for stream, owner in result.owners.items()}
    count = load.blocks * load.block_ms // load.chunk_ms
    blocks = load.completing(np.arange(count))
    times: list[Array] = []
    waits: list[Array] = []
    out = {stream: np.full(count, np.nan) for stream in result.sent}
    for owner, stream, number, at in result.chunks:
        which = order.get((int(owner), int(stream)))
        if which is not None and number < count:
            out[which][int(number)] = at
    last = max(result.ended, float(result.chunks[:, 3].max()) if len(result.chunks) else 0.0)
    for stream, sent in result.sent.items():
        asked = sent[blocks[blocks < len(sent)]]
        answered = out[stream][: len(asked)]
        counted = (asked >= result.began) & (asked <= result.ended)
        answered = np.where(np.isnan(answered), np.maximum(last, asked), answered)
        times.append(asked[counted])
        waits.append(1000 * (answered - asked)[counted])
    return np.concatenate(times), np.concatenate(waits)


def tokens_of(result: Result) -> dict[tuple[int, int], Placed]:
    """Tokens by owner and number."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for owner, stream, token, frame in result.tokens:
        found.setdefault((int(owner), int(stream)), []).append((int(frame), int(token)))
    return {key: placed(tokens) for key, tokens in found.items()}


def _between(table: Array, column: int, result: Result) -> Array:
    inside = (table[:, column] >= result.began) & (table[:, column] <= result.ended)
    return table[inside]

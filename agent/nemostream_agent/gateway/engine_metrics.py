"""An engine's figures for Prometheus, made anew of what it says of itself whenever somebody asks.

text = generate_latest(EngineMetrics(description))
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from nemostream.figures import Description, Histogram


class EngineMetrics(Collector):
    """`description`: None: the engine does not answer, which is the one figure then."""

    def __init__(self, description: Description | None) -> None:
        self._description = description

    def collect(self) -> Iterator[Metric]:
        about = self._description
        yield GaugeMetricFamily("nemostream_engine_up", "1 if the engine answers", about is not None)
        if about is None:
            return
        models = InfoMetricFamily("nemostream_engine", "What runs", labels=["model"])
        for model in about.models:
            facts = {"device": about.device, "processor": about.processor}
            models.add_metric([model.name], {**facts, "backend": model.backend, "precision": model.precision})
        yield models
        for name, text, value in (
            ("engine_streams", "Streams of all its clients that hold a row", about.stats["streams"]),
            ("engine_rows", "Streams that there are rows for", about.stats["max_streams"]),
            ("engine_waiting_streams", "Files that wait for a row", about.stats["waiting"]),
            ("engine_step_ratio", "Part of the time that steps take", about.stats["step_share"]),
            ("engine_predicted_ratio", "Part of the time that the steps of live streams will take",
             about.stats["predicted_share"]),
            ("engine_memory_bytes", "Memory that the engine's process holds", about.memory_bytes),
            ("machine_memory_bytes", "Memory of the machine", about.memory_total_bytes),
        ):  # fmt: skip
            yield GaugeMetricFamily(f"nemostream_{name}", text, value)
        yield CounterMetricFamily("nemostream_engine_retries", "Steps that were tried again", about.stats["retries"])
        figures = about.figures
        yield _histogram("step_seconds", "Time of an engine's step", figures.step_seconds)
        yield _histogram("batch_size", "Streams in a step", figures.batch_size)
        yield _histogram(
            "queue_delay_seconds", "From a complete chunk to its step, for the stream that waited longest",
            figures.queue_delay_seconds,
        )  # fmt: skip


def _histogram(name: str, text: str, found: Histogram) -> Metric:
    bounds = [*map(str, map(float, found.bounds)), "+Inf"]
    counts = accumulate(map(float, found.counts))
    return HistogramMetricFamily(f"nemostream_{name}", text, list(zip(bounds, counts, strict=True)), found.total)

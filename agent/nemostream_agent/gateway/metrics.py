"""What a gateway counts, for Prometheus: its own figures, and the engine's when somebody asks.

metrics = Metrics(house)
metrics.streams.labels("ws").inc()
text = metrics.text(await service.look())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .engine_metrics import EngineMetrics
from .limits import House

if TYPE_CHECKING:
    from nemostream.figures import Description

FIRST_TEXT = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
FINAL = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Seconds: buckets of the histograms."""


class Metrics:
    """A registry of its own, so that several gateways may live in one process."""

    def __init__(self, house: House) -> None:
        self.registry = registry = CollectorRegistry()
        self.streams = Counter("nemostream_streams", "Streams opened", ["protocol"], registry=registry)
        self.refusals = Counter("nemostream_refusals", "Streams and requests refused", ["reason"], registry=registry)
        self.audio_seconds = Counter("nemostream_audio_seconds", "Audio heard", registry=registry)
        self.time_to_first_text = Histogram(
            "nemostream_time_to_first_text_seconds",
            "From the audio in which a segment's first word begins to its first text",
            buckets=FIRST_TEXT,
            registry=registry,
        )
        self.time_to_final = Histogram(
            "nemostream_time_to_final_seconds",
            "From the audio in which a segment's last word ends, or the request for it, to its final text",
            buckets=FINAL,
            registry=registry,
        )
        self._gauge("active_streams", "Streams that are open", lambda: house.open)
        self._gauge("soft_limit", "Streams from which another machine is needed", lambda: house.limits.soft)
        self._gauge("hard_limit", "Streams beyond which the next is refused", lambda: house.limits.hard)
        self._gauge("draining", "1 while the gateway is ending", lambda: house.draining)

    def _gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        Gauge(f"nemostream_{name}", about, registry=self.registry).set_function(value)

    def refused(self, reason: str) -> None:
        self.refusals.labels(reason).inc()

    def text(self, engine: Description | None) -> bytes:
        """In Prometheus' text format, with the figures of an engine that says this of itself."""
        return generate_latest(self.registry) + generate_latest(EngineMetrics(engine))

"""What an engine counts of its steps, and what it says of itself: plain data, which crosses the socket as it is.

figures = Figures()
figures.step_seconds.observe(0.004)
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.024, 0.032, 0.048, 0.064, 0.08, 0.12, 0.16, 0.24, 0.32, 0.56, 1.12, 5.0)
"""Buckets around what a chunk leaves time for: a step may take half of one (scheduler.STEP_BOUND)."""
ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)


@dataclass(slots=True)
class Histogram:
    """Counts of values by size. One thread writes; who reads meanwhile may miss the newest value.

    Attributes:
        bounds: ascending; a value counts in the first bucket whose bound it does not exceed.
        counts: one for each bound, and one for what is beyond the last.
        total: of all values.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Values so far."""
        return sum(self.counts)


@dataclass(slots=True)
class Figures:
    """Of all steps of an engine since its start.

    Attributes:
        step_seconds: that a step took.
        batch_size: streams in it.
        queue_delay_seconds: from the moment the stream that waited longest had its chunk complete to the start of its
            step. Looks into unfinished chunks have none.
    """

    step_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batch_size: Histogram = field(default_factory=lambda: Histogram(ROWS))
    queue_delay_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that is loaded.

    Attributes:
        name: its own.
        names: those by which streams ask for it; "" is the default.
        backend: what computes its encoder, and the version.
        precision: of the encoder.
    """

    name: str
    names: list[str]
    backend: str
    precision: str


@dataclass(frozen=True, slots=True)
class Description:
    """What an engine says of itself (Engine.describe).

    Attributes:
        pid: of its process.
        device: EngineConfig.device.
        memory_bytes: that the process holds.
        memory_total_bytes: of the machine.
        max_batch: EngineConfig.max_batch.
        stats: Engine.stats.
    """

    pid: int
    device: str
    processor: str
    memory_bytes: int
    memory_total_bytes: int
    models: list[ModelFacts]
    max_batch: int | None
    stats: dict[str, float]
    figures: Figures

    def model(self, name: str | None) -> ModelFacts | None:
        """The one that streams get which ask for `name`; None if it is not loaded."""
        return next((m for m in self.models if (name or "") in m.names), None)

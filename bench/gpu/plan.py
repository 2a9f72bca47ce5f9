"""What is measured, on a GPU and at small sizes on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Attributes:
    device, shape, precision: of what is swept.
    precisions: that parity looks at.
    chunks_ms: chunk sizes.
    streams: for each chunk size, numbers of streams that are tried, ascending; those of the issue among them.
    sizes: of batches, where steps are taken apart.
    seconds: that a number of streams is kept up.
    parity_shapes, parity_streams, parity_seconds: what parity runs over.
    rounds: that a time is the median of.
    product, copy_mb: the side of the square product, and the copy, whose speed counts as the device's.
    """

    device: str
    shape: str
    precision: str
    precisions: tuple[str, ...]
    chunks_ms: tuple[int, ...]
    streams: Mapping[int, tuple[int, ...]]
    sizes: tuple[int, ...]
    seconds: float
    parity_shapes: tuple[str, ...]
    parity_streams: int
    parity_seconds: float
    rounds: int
    product: int
    copy_mb: int


GPU = Plan(
    device="cuda",
    shape="nemotron-0.6b",
    precision="bf16",
    precisions=("fp32", "bf16", "fp16"),
    chunks_ms=(80, 160, 560, 1120),
    streams={
        80: (240, 600, 1200, 1800, 2400, 3200, 4000),
        160: (600, 1200, 2400, 4000, 5200, 6400),
        560: (560, 2400, 4800, 8000, 10000),
        1120: (1120, 2400, 6000, 9000, 12000),
    },
    sizes=(1, 8, 64, 256, 1024, 2400),
    seconds=10.0,
    parity_shapes=("embedded", "fastconformer-114m"),
    parity_streams=8,
    parity_seconds=12.0,
    rounds=20,
    product=8192,
    copy_mb=2048,
)
CPU = Plan(
    device="cpu",
    shape="tiny",
    precision="fp32",
    precisions=("fp32", "bf16"),
    chunks_ms=(160,),
    streams={160: (2, 4)},
    sizes=(1, 3),
    seconds=1.0,
    parity_shapes=("tiny",),
    parity_streams=2,
    parity_seconds=2.0,
    rounds=2,
    product=256,
    copy_mb=8,
)
"""The same sections at sizes that a test can wait for: not a measurement."""

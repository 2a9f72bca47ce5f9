"""The most streams that are answered in time, by bisection.

best, rows = most_streams(lambda n: meter.row(load(n)), share=1.0)
"""

from __future__ import annotations

from collections.abc import Callable

from bench.engine.row import Row

PRECISION = 0.04
"""The search ends where the number is known to this part of itself."""


def most_streams(probe: Callable[[int], Row], share: float, start: int = 8, most: int = 8192) -> int:
    """The largest number that was found to be within `share` of a chunk; 0 if one stream is not. `probe` is asked again
    where it failed once: a machine that stumbled once says nothing of the model."""

    def carried(streams: int) -> bool:
        return any(probe(streams).within(share) for _ in range(2))

    low, high = 0, start
    while high <= most and carried(high):
        low, high = high, 2 * high
    if high > most:
        return low
    while high - low > max(1, int(PRECISION * high)):
        middle = (low + high) // 2
        low, high = (middle, high) if carried(middle) else (low, middle)
    return low

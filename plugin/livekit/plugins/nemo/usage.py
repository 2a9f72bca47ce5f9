"""Sums up the audio that was heard and reports it every few seconds, as the framework's metrics want it."""

from __future__ import annotations

import time
from collections.abc import Callable

PERIOD = 5.0


class PeriodicCollector:
    """Calls `report(seconds)` with the sum of what was pushed, at most every `period` seconds and on flush."""

    def __init__(self, report: Callable[[float], None], *, period: float = PERIOD) -> None:
        self._report = report
        self._period = period
        self._total = 0.0
        self._reported_at = time.monotonic()

    def push(self, seconds: float) -> None:
        self._total += seconds
        if time.monotonic() - self._reported_at >= self._period:
            self.flush()

    def flush(self) -> None:
        if self._total:
            self._report(self._total)
        self._total = 0.0
        self._reported_at = time.monotonic()

"""The part of time that steps take, over the last seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

SECONDS = 2.5
"""Time constant: what happened this long ago counts 1/e."""


@dataclass(slots=True)
class Meter:
    """A leaky sum of the steps' seconds."""

    _sum: float = 0.0
    _at: float = 0.0

    def add(self, now: float, seconds: float) -> None:
        """A step that took so long has just ended."""
        self._sum = self._decayed(now) + seconds
        self._at = now

    def share(self, now: float) -> float:
        """0 when idle, 1 when there is a step at all times."""
        return min(1.0, self._decayed(now) / SECONDS)

    def _decayed(self, now: float) -> float:
        return self._sum * math.exp((self._at - now) / SECONDS)

"""What a step costs: a fixed part and a part for each row, learnt from the steps themselves."""

from __future__ import annotations

from dataclasses import dataclass

FORGET = 0.95
"""Weight of the past at each new step: a machine's speed changes."""
SPREAD = 0.25
"""Variance of the batch size below which the two parts cannot be told apart."""


@dataclass(slots=True)
class StepCost:
    """Least squares over the steps so far, old ones forgotten: seconds = fixed + rows * per_row."""

    weight: float = 0.0
    rows: float = 0.0
    seconds: float = 0.0
    _rows_rows: float = 0.0
    _rows_seconds: float = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """A step of that many rows took so long."""
        self.weight = FORGET * self.weight + 1
        gain = 1 / self.weight
        step = rows - self.rows
        self.rows += gain * step
        self.seconds += gain * (seconds - self.seconds)
        self._rows_rows = FORGET * self._rows_rows + step * (rows - self.rows)
        self._rows_seconds = FORGET * self._rows_seconds + step * (seconds - self.seconds)

    @property
    def per_row(self) -> float:
        """Seconds for one more row; all of a step's cost is laid on its rows while nothing tells better."""
        if not self.weight:
            return 0.0
        whole = self.seconds / self.rows
        if self._spread < SPREAD:
            return whole
        return min(max(0.0, self._rows_seconds / self._rows_rows), whole)

    @property
    def fixed(self) -> float:
        """Seconds that a step costs whatever its rows."""
        return max(0.0, self.seconds - self.per_row * self.rows)

    def rows_within(self, bound: float, total: int) -> int:
        """Rows of `total` that a step may take to stay within `bound` seconds; at least one."""
        if not self.weight:
            return total
        if self.fixed >= bound:
            # Even one row is too slow, and more of them cost little: a small batch would only fall further behind.
            return total
        limit = (bound - self.fixed) / self.per_row if self.per_row else float(total)
        if self._spread < SPREAD:
            # Steps of one size say nothing about larger ones: try.
            limit = max(limit, 2 * self.rows)
        return max(1, min(total, int(limit)))

    @property
    def _spread(self) -> float:
        return self._rows_rows / self.weight if self.weight else 0.0

"""What a step costs: a fixed part and a part for each row, as calibrated and as learnt from the steps themselves."""

from __future__ import annotations

from dataclasses import dataclass

FORGET = 0.95
"""Weight of the past at each new step: a machine's speed changes."""
SPREAD = 0.25
"""Variance of the batch size below which the two parts cannot be told apart."""
EVIDENCE = 12.0
"""Weight from which steps are evidence (19 of them): the first ones after a start are slow."""
OUTLIER = 4.0
"""A step counts as at most so many times what it should have taken."""
FRESH_SECONDS = 10.0
"""Steps this long ago say nothing of now: the machine may have been busy with something else."""


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of a step of n rows: fixed + n * per_row."""

    fixed: float
    per_row: float

    def of(self, rows: float) -> float:
        return self.fixed + rows * self.per_row


@dataclass(slots=True)
class StepCost:
    """Least squares over the steps so far, old ones forgotten: seconds = fixed + rows * per_row.

    Attributes:
        calibrated: measured before, on a quiet machine (calibration.py). It tells the two parts apart; the steps then
            only say how much slower or faster the machine is now.
        at: when the last step ended.
    """

    calibrated: Line | None = None
    weight: float = 0.0
    rows: float = 0.0
    seconds: float = 0.0
    at: float = 0.0
    _rows_rows: float = 0.0
    _rows_seconds: float = 0.0
    _shape: Line | None = None

    def observe(self, rows: int, seconds: float, now: float = 0.0) -> None:
        """A step of that many rows took so long."""
        self.at = now
        if self.weight >= EVIDENCE:
            # A process that was stopped, or a machine that slept, says nothing of steps. A machine that is slower now
            # shows it step by step.
            seconds = min(seconds, OUTLIER * self.seconds * max(1.0, rows / self.rows))
        self.weight = FORGET * self.weight + 1
        gain = 1 / self.weight
        step = rows - self.rows
        self.rows += gain * step
        self.seconds += gain * (seconds - self.seconds)
        self._rows_rows = FORGET * self._rows_rows + step * (rows - self.rows)
        self._rows_seconds = FORGET * self._rows_seconds + step * (seconds - self.seconds)
        if self._rows_rows / self.weight >= SPREAD:
            per_row = min(max(0.0, self._rows_seconds / self._rows_rows), self.seconds / self.rows)
            self._shape = Line(max(0.0, self.seconds - per_row * self.rows), per_row)

    @property
    def known(self) -> bool:
        """There were enough steps to judge by."""
        return self.weight >= EVIDENCE

    @property
    def per_row(self) -> float:
        """Seconds for one more row; all of a step's cost is laid on its rows while nothing tells better."""
        if self._line is not None:
            return self._line.per_row * self._pace
        return self.seconds / self.rows if self.weight else 0.0

    @property
    def fixed(self) -> float:
        """Seconds that a step costs whatever its rows."""
        return self._line.fixed * self._pace if self._line is not None else 0.0

    def rows_within(self, bound: float, total: int) -> int:
        """Rows of `total` that a step may take to stay within `bound` seconds; at least one."""
        if not self.weight and self.calibrated is None:
            return total
        if self.fixed >= bound:
            # Even one row is too slow, and more of them cost little: a small batch would only fall further behind.
            return total
        limit = (bound - self.fixed) / self.per_row if self.per_row else float(total)
        if self._line is None and (self.seconds <= bound or self.rows < 2):
            # Steps of one size say nothing about larger ones: try.
            limit = max(limit, 2 * self.rows)
        return int(max(1, min(total, limit)))

    def predict(self, rows: int, calls: int, now: float) -> float | None:
        """Seconds that `calls` steps over `rows` rows in all will take; None without evidence: a calibration, or
        enough steps of late."""
        learnt = self.known and now - self.at <= FRESH_SECONDS
        if self.calibrated is None and not learnt:
            return None
        if self._line is None:
            # All that is sure: a step of more rows takes no less than those seen.
            return self.seconds * min(calls, rows / self.rows)
        pace = self._pace if learnt else 1.0
        return pace * (calls * self._line.fixed + rows * self._line.per_row)

    @property
    def _line(self) -> Line | None:
        """What tells the two parts apart: the calibration, or the last steps that were of several sizes."""
        return self.calibrated or self._shape

    @property
    def _pace(self) -> float:
        """Seconds that a step takes now for each that the line says."""
        expected = self._line.of(self.rows) if self._line is not None else 0.0
        sure = self.calibrated is None or self.known
        return self.seconds / expected if sure and expected > 0 else 1.0

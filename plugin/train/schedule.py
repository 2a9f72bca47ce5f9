"""What a training step optimises, and how fast: a pure function of the step and of the hours heard so far.

    stage = Schedule(flat_steps=500, clean_steps=1200, rnnt_step=1500).stage(step)
    rate = schedule.rate(step, hours)

From nothing, CTC at 8x subsampling stays on its plateau for days; 500 steps of frame cross-entropy on clean speech end
that in minutes. From a trained model (all three at 0) every step trains RNN-T and CTC on augmented speech.
"""

from __future__ import annotations

from dataclasses import dataclass

COOL_SHARE = 0.2
"""The last part of the planned hours, over which the rate falls to zero."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Weights of the three losses, and whether speech is left as it is."""

    flat: float
    ctc: float
    rnnt: float
    clean: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """`hours`: audio to hear in all, counted with repetitions; it can be changed when a run is resumed.

    Steps count from the first one: speech is clean for `clean_steps`, RNN-T begins at `rnnt_step`, and the rate rises
    over `warm_steps`.
    """

    hours: float = 3000.0
    peak_rate: float = 1e-3
    flat_steps: int = 0
    clean_steps: int = 0
    rnnt_step: int = 0
    warm_steps: int = 200

    def stage(self, step: int) -> Stage:
        clean = step < self.clean_steps
        if step < self.flat_steps:
            return Stage(1.0, 0.2 if step > self.flat_steps // 2 else 0.0, 0.0, clean)
        if step < self.rnnt_step:
            return Stage(0.0, 1.0, 0.0, clean)
        return Stage(0.0, 0.3, 1.0, clean)

    def rate(self, step: int, hours: float) -> float:
        """Linear warm-up, constant, and a straight line to zero over the last fifth of the hours."""
        warm = min(1.0, (step + 1) / self.warm_steps)
        cool = min(1.0, max(0.0, self.hours - hours) / (COOL_SHARE * self.hours))
        return self.peak_rate * warm * cool

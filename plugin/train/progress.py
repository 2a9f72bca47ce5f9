"""What a run has to show: a line per interval, a history as JSON, a learning curve as PNG."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, float]


@dataclass(slots=True)
class History:
    """`train` has a row per interval (step, hours, minutes, speed, rate, ctc, rnnt, flat), `held_out` one per
    evaluation (step, hours, minutes, wer_*, ctc@, rnnt@). hours: audio heard; minutes: of work, resumptions and all."""

    train: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write history.json and curve.png into `folder`."""
        partial = folder / "history.partial"
        partial.write_text(json.dumps({"train": self.train, "held_out": self.held_out}, indent=0), encoding="utf-8")
        os.replace(partial, folder / "history.json")
        if self.train:
            draw(self, folder / "curve.png")


def line(row: Row) -> str:
    """One row as one line of the log."""
    return "  ".join(f"{key} {_number(value)}" for key, value in row.items())


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) >= 1 else f"{value:.4g}"


def draw(history: History, path: Path) -> None:
    """Losses per token above, WER of held-out voices below, over hours of audio heard."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for key in ("ctc", "rnnt"):
        above.plot(_column(history.train, "hours"), _column(history.train, key), label=f"{key}, training (augmented)")
    for key, axes in ((k, below if k.startswith("wer") else above) for row in history.held_out[-1:] for k in row):
        if "@" in key:
            axes.plot(_column(history.held_out, "hours"), _column(history.held_out, key), ".-", label=key)
    above.set(ylabel="loss per token", ylim=(0, None))
    below.set(ylabel="WER, held-out voices", xlabel="hours of audio heard", ylim=(0, 1))
    for axes in (above, below):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=120, format="png")


def _column(rows: list[Row], key: str) -> list[Any]:
    return [row.get(key, float("nan")) for row in rows]

"""The table, the JSON and the picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.accuracy.edits import Interval
from bench.accuracy.row import Difference, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    *("model", "chunk ms", "silence before, s", "set", "clips", "words", "WER (95 %)", "CER (95 %)"),
    *(
        "first text, ms p50 p95",
        "final, ms p50 p95",
        "onset against CTC, ms",
        "against sound, ms",
        "flush, steps",
        "ms",
    ),
)


def heading() -> str:
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def line(row: Row) -> str:
    """One row of the table."""
    cells = [
        str(row.variant),
        str(row.chunk_ms),
        f"{row.lead:g}",
        row.kind,
        str(row.clips),
        str(row.words),
        _percent(row.wer),
        _percent(row.cer),
        f"{_ms(row.first_p50)} {_ms(row.first_p95)}",
        f"{_ms(row.final_p50)} {_ms(row.final_p95)}",
        _ms(row.onset, "+.0f"),
        _ms(row.sound_onset, "+.0f"),
        f"{row.flush.steps:g}" if row.flush else "-",
        f"{row.flush.ms:.1f}" if row.flush else "-",
    ]
    return f"| {' | '.join(cells)} |"


def differences(found: Sequence[Difference]) -> str:
    """The table of WERs against the first variant's; empty where there is one only."""
    if not found:
        return ""
    columns = (
        *("WER of", f"minus {found[0].base}: points (95 %)", "times", "chunk ms", "silence before, s"),
        *("set", "which is"),
    )
    lines = [f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"]
    for each in found:
        points = " ".join(f"{100 * x:+.1f}" for x in (each.wer.rate, each.wer.low, each.wer.high)).split()
        verdict = "better" if each.wer.high < 0 else "worse" if each.wer.low > 0 else "undecided"
        times = "-" if each.times is None else f"{each.times:.2f}"
        cells = [str(each.variant), f"{points[0]} ({points[1]} to {points[2]})", times, str(each.chunk_ms)]
        lines.append(f"| {' | '.join([*cells, f'{each.lead:g}', each.kind, verdict])} |")
    return "\n".join(lines)


def write_json(path: Path, head: dict[str, Any], rows: Sequence[Row], found: Sequence[Difference]) -> None:
    tables = {"rows": [asdict(row) for row in rows], "differences": [asdict(each) for each in found]}
    path.write_text(json.dumps({**head, **tables}, indent=1) + "\n")


def write_png(path: Path, rows: Sequence[Row], title: str) -> None:
    from matplotlib import pyplot

    figure = draw(rows, title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw(rows: Sequence[Row], title: str) -> Figure:
    """WER by chunk size with its interval, a picture for each set; hollow behind more silence than the least."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds, chunks = (list(dict.fromkeys(values)) for values in zip(*((r.kind, r.chunk_ms) for r in rows), strict=True))
    lines = list(dict.fromkeys((row.variant, row.lead) for row in rows))
    colours = {variant: f"C{i}" for i, variant in enumerate(dict.fromkeys(variant for variant, _ in lines))}
    least = min(lead for _, lead in lines)
    figure, pictures = pyplot.subplots(1, len(kinds), figsize=(2 + 4 * len(kinds), 4.5), sharey=True, squeeze=False)
    for axes, kind in zip(pictures[0], kinds, strict=True):
        for i, (variant, lead) in enumerate(lines):
            mine = [r for r in rows if (r.variant, r.lead, r.kind) == (variant, lead, kind)]
            at = [chunks.index(r.chunk_ms) + 0.5 * ((i + 0.5) / len(lines) - 0.5) for r in mine]
            rates = [100 * r.wer.rate for r in mine]
            spread = [[100 * (r.wer.rate - r.wer.low) for r in mine], [100 * (r.wer.high - r.wer.rate) for r in mine]]
            look: dict[str, Any] = {"color": colours[variant], "mfc": None if lead == least else "white", "capsize": 3}
            axes.errorbar(at, rates, yerr=spread, fmt="o", label=f"{variant}; {lead:g} s before", **look)
        axes.set(title=kind, xlabel="chunk, ms", xticks=range(len(chunks)), xticklabels=chunks)
    # Last, since they share it: a limit that is set ends the search for one.
    pictures[0][0].set(ylabel="WER, %", ylim=(0, 105 * max(row.wer.high for row in rows) or 1))
    pictures[0][0].legend(fontsize=7)
    figure.suptitle(title)
    figure.tight_layout()
    return figure


def _percent(interval: Interval) -> str:
    return f"{interval.rate:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _ms(value: float | None, form: str = ".0f") -> str:
    return "-" if value is None else format(value, form)

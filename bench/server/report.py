"""The table, the JSON and the picture. Rounds of a row stand together: median (least - most)."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

from bench.server.row import Row

COLUMNS = (
    *("streams", "WER", "CER", "text as alone", "first text p50, ms", "p99", "last text p50, ms", "p99"),
    *("audio s per s", "refused", "errors", "mean batch", "cores", "clients: lag p99, ms", "of a core", "counts"),
)


def heading() -> str:
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def line(rows: Sequence[Row]) -> str:
    """One row of the table, of the rounds with as many streams; a round that does not count is left out where there
    are others."""
    rows = [row for row in rows if row.valid] or rows
    counted = sum((Counter(row.errors) for row in rows), Counter[str]())
    cells = [
        str(rows[0].streams),
        *(spread(rows, attrgetter(name), "{:.1%}") for name in ("wer", "cer", "identical")),
        *(spread(rows, attrgetter(name), "{:.0f}") for name in ("first_p50", "first_p99", "last_p50", "last_p99")),
        spread(rows, attrgetter("throughput"), "{:.1f}"),
        str(sum(row.refused for row in rows)),
        ", ".join(f"{count} {kind}" for kind, count in sorted(counted.items())) or "0",
        spread(rows, attrgetter("load.mean_batch"), "{:.1f}"),
        ", ".join(_cores(rows, name) for name in rows[0].load.cpu) or "-",
        spread(rows, lambda row: row.load.client_lag_ms[0], "{:.0f}"),
        spread(rows, attrgetter("load.client_cpu"), "{:.2f}"),
        "yes" if all(row.valid for row in rows) else "no: the clients were late",
    ]
    return f"| {' | '.join(cells)} |"


def on_top(rows: Sequence[Row]) -> str:
    """A sentence on the streams that came on top; empty where none did."""
    times = [ms for row in rows for ms in row.load.refused_ms]
    let_in = sum(row.load.let_in for row in rows)
    if not times:
        return f"{let_in} streams on top were let in" if let_in else ""
    return (
        f"{len(times)} streams on top were refused within {max(times):.0f} ms, median {statistics.median(times):.0f}"
        + (f"; {let_in} were let in" if let_in else "")
    )


def _cores(rows: Sequence[Row], name: str) -> str:
    return f"{name} {spread(rows, lambda row: row.load.cpu[name], '{:.2f}')}"


def spread(rows: Sequence[Row], value: Callable[[Row], float | None], form: str) -> str:
    """Median (least - most), or the one value that there is."""
    found = [v for row in rows if (v := value(row)) is not None]
    if not found:
        return "-"
    middle, least, most = (form.format(v) for v in (statistics.median(found), min(found), max(found)))
    return middle if least == most else f"{middle} ({least} - {most})"


def write_json(path: Path, head: dict[str, Any], rows: Sequence[Row]) -> None:
    path.write_text(json.dumps({**head, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def write_png(path: Path, rows: Sequence[Row], title: str) -> None:
    """First and last text against streams, medians over the rounds, of rows that count."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for index, what in enumerate(("first", "last")):
        for part, style in (("p99", "o-"), ("p50", ".:")):
            points: dict[int, list[float]] = {}
            for row in rows:
                if row.valid and (ms := getattr(row, f"{what}_{part}")) is not None:
                    points.setdefault(row.streams, []).append(ms)
            values = [statistics.median(points[n]) for n in sorted(points)]
            axes.plot(sorted(points), values, style, color=f"C{index}", label=f"{what} text, {part}")
    axes.set(xlabel="streams", ylabel="ms", title=title)
    if any(len(line.get_xdata()) for line in axes.lines):  # no row may have counted, and nothing has no logarithm
        axes.set(xscale="log", yscale="log")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

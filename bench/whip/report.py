"""The table, the JSON and the picture. Rounds of a row stand together: median (least - most)."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy.edits import Interval
from bench.server.report import spread
from bench.whip.load import Weather
from bench.whip.row import Row

COLUMNS = (
    *("sessions", "packets", "lost of sent", "words", "WER", "WER above the first row (95 %)"),
    *("caption ms p50", "p95", "final ms p50", "p95", "delay ms before loss", "after it", "lost audio / lost packets"),
    *("ended early", "connected ms p50", "most", "CPU s per audio s", "MB", "clients: of a core", "counts"),
)


def heading() -> str:
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def described(weather: Weather) -> str:
    """What the line does, as `5 % lost in bursts of 4, 3 % late by 30 ms`."""
    parts = []
    if weather.loss:
        parts.append(f"{100 * weather.loss:g} % lost" + (f" in bursts of {weather.burst:g}" if weather.burst else ""))
    if weather.reorder:
        parts.append(f"{100 * weather.reorder:g} % late by {1000 * weather.late:g} ms")
    return ", ".join(parts) or "all come"


def line(rows: Sequence[Row], first: Sequence[Row]) -> str:
    """One row of the table, of the rounds with that weather; a round that does not count is left out where there are
    others. `first`: the rounds that it is compared with."""
    counted = [row for row in rows if row.valid] or rows
    early = sum((Counter(row.errors) for row in rows), Counter[str]())
    cells = [
        str(rows[0].sessions),
        described(rows[0].weather),
        f"{sum(row.lost for row in counted)} of {sum(row.sent for row in counted)}",
        str(sum(sum(row.words) for row in counted)),
        spread(counted, attrgetter("wer"), "{:.1%}"),
        "-" if rows[0].weather == first[0].weather else _difference(rows, first),
        *(spread(counted, attrgetter(n), "{:.0f}") for n in ("caption_p50", "caption_p95", "final_p50", "final_p95")),
        *(spread(counted, attrgetter(name), "{:.0f}") for name in ("before", "after")),
        spread(counted, attrgetter("lost_audio"), "{:.2f}"),
        ", ".join(f"{count} {kind}" for kind, count in sorted(early.items())) or "0",
        *(spread(counted, attrgetter(name), "{:.0f}") for name in ("connected_p50", "connected_max")),
        ", ".join(f"{n} {spread(counted, lambda row, n=n: row.cost.cpu[n], '{:.4f}')}" for n in rows[0].cost.cpu),
        ", ".join(f"{n} {spread(counted, lambda row, n=n: row.cost.rss_mb[n], '{:.0f}')}" for n in rows[0].cost.rss_mb),
        spread(counted, attrgetter("cost.client_cpu"), "{:.2f}"),
        "yes" if all(row.valid for row in counted) else "no: the clients were late",
    ]
    return f"| {' | '.join(cells)} |"


def _difference(rows: Sequence[Row], first: Sequence[Row]) -> str:
    """Round by round and session by session of the same words."""
    both = list(zip(rows, first, strict=True))
    pairs = [(a, b) for a, b in both if a.valid and b.valid] or both
    errors, before, words = (
        np.array([n for pair in pairs for n in of(*pair)], np.int64)
        for of in (lambda a, b: a.word_errors, lambda a, b: b.word_errors, lambda a, b: a.words)
    )
    found = Interval.of_difference(errors, before, words, seed=0)
    return f"{found.rate:+.1%} ({found.low:+.1%} to {found.high:+.1%})"


def on_top(rows: Sequence[Row]) -> str:
    """A sentence on the POSTs above the limit; empty where none were tried."""
    times = [ms for row in rows for ms in row.cost.refused_ms]
    let_in = sum(row.cost.let_in for row in rows)
    if not times:
        return f"{let_in} POSTs above the limit were let in" if let_in else ""
    told = "each with Retry-After" if all(row.cost.retry_after for row in rows) else "not all with Retry-After"
    said = f"{len(times)} POSTs above the limit got 503, {told}, within {max(times):.0f} ms"
    return said + f", median {statistics.median(times):.0f}" + (f"; {let_in} were let in" if let_in else "")


def write_json(path: Path, head: dict[str, Any], rows: Sequence[Row]) -> None:
    path.write_text(json.dumps({**head, "rows": [{**asdict(row), "wer": row.wer} for row in rows]}, indent=1) + "\n")


def write_png(path: Path, rows: Sequence[Row], title: str) -> None:
    """For each kind of weather, medians over the rounds: captions and finals, and the delay before and after loss."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(row.weather for row in rows))
    names = ("before", "after", "caption_p50", "caption_p95", "final_p50", "final_p95")
    labels = ("before loss, p50", "after loss, p50", "caption, p50", "caption, p95", "final, p50", "final, p95")
    figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
    width = 0.8 / len(names)
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        found = [[ms for r in rows if r.weather == kind and (ms := getattr(r, name)) is not None] for kind in kinds]
        heights = [statistics.median(values) if values else 0.0 for values in found]
        axes.bar([k + (i - (len(names) - 1) / 2) * width for k in range(len(kinds))], heights, width, label=label)
    axes.set_xticks(range(len(kinds)), [described(kind) for kind in kinds])
    axes.set(ylabel="ms", title=title)
    figure.legend(fontsize=8, ncols=3, loc="outside lower center")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

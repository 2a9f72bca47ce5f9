"""The table, the JSON and the picture."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.engine.batches import Batch
from bench.engine.row import Row
from nemostream.ort import onnxruntime

COLUMNS = (
    *("chunk ms", "streams", "step ms p50 p95 p99", "response ms p50 p95 p99", "flush ms p50 p95", "drift ms/s"),
    *("mean batch", "late", "refused", "equal streams", "equal tokens", "core s per stream-s: engine", "clients"),
    *("sender late ms p99", "RSS MB", "of roofline"),
)


def heading() -> str:
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def line(row: Row) -> str:
    """One row of the table. `late` is of all chunks; streams that failed or were never answered count as refused."""
    agreed = row.agreement
    cells = [
        str(row.chunk_ms),
        str(row.streams),
        f"{row.step_p50:.2f} {row.step_p95:.2f} {row.step_p99:.2f}",
        f"{row.response_p50:.1f} {row.response_p95:.1f} {row.response_p99:.1f}",
        f"{row.flush_p50:.1f} {row.flush_p95:.1f}",
        f"{row.drift:+.2f}",
        f"{row.mean_batch:.1f}",
        f"{row.late} of {row.chunks}",
        str(row.refused + row.failed + row.unanswered),
        f"{agreed.streams_equal:.0%} of {agreed.streams}",
        f"{agreed.tokens_equal:.2%} of {agreed.tokens} ({row.reference})",
        f"{row.engine_cpu:.5f}",
        f"{row.client_cpu:.5f}",
        f"{row.client_lag_p99:.1f}",
        f"{row.rss_mb:.0f}",
        f"{row.roofline:.0%}" if row.roofline == row.roofline else "-",
    ]
    return f"| {' | '.join(cells)} |"


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cpu = next((x.partition(":")[2].strip() for x in _cpuinfo() if x.startswith("model name")), platform.processor())
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def write_json(path: Path, head: dict[str, Any], rows: Sequence[Row | Batch]) -> None:
    path.write_text(json.dumps({**head, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def write_png(path: Path, rows: Sequence[Row], title: str) -> None:
    """Response against streams, one line for each chunk size; where it crosses its chunk, streams are late."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for index, chunk_ms in enumerate(sorted({row.chunk_ms for row in rows})):
        mine = sorted((row for row in rows if row.chunk_ms == chunk_ms), key=lambda row: row.streams)
        streams, colour = [row.streams for row in mine], f"C{index}"
        axes.plot(streams, [row.response_p95 for row in mine], "o-", color=colour, label=f"{chunk_ms} ms, p95")
        axes.plot(streams, [row.response_p50 for row in mine], ".:", color=colour, label=f"{chunk_ms} ms, median")
        axes.axhline(chunk_ms, color=colour, linewidth=0.8, linestyle="--")
    axes.set(xlabel="streams", ylabel="chunk response, ms", title=title, xscale="log", yscale="log")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []

"""The table, the JSON and the picture: a row for each page and reader, over all rounds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.browser.utterance import Utterance
from bench.peers.words import error_rate

TIMES = {
    "first": "first word to first text, ms",
    "final": "last word to final, ms",
    "sent": "gateway's final to final, ms",
}


def heading() -> str:
    columns = (
        "spoken on",
        "read on",
        "sentences",
        *(f"{title}: median (min - max)" for title in TIMES.values()),
        "WER",
    )
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def rows(heard: Sequence[Utterance]) -> dict[tuple[str, str], list[Utterance]]:
    """By page and reader, in the order in which they came."""
    found: dict[tuple[str, str], list[Utterance]] = {}
    for one in heard:
        found.setdefault((one.page, one.reader), []).append(one)
    return found


def line(heard: Sequence[Utterance]) -> str:
    """Of one page and reader."""
    times = (spread([ms for one in heard if (ms := getattr(one, name)) is not None]) for name in TIMES)
    wer = error_rate([one.said for one in heard], [one.heard for one in heard])
    return f"| {heard[0].page} | {heard[0].reader} | {len(heard)} | {' | '.join(times)} | {wer:.1%} |"


def spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.0f} ({min(values):.0f} - {max(values):.0f})"


def write_json(path: Path, head: dict[str, Any], heard: Sequence[Utterance]) -> None:
    path.write_text(json.dumps({**head, "utterances": [asdict(one) for one in heard]}, indent=1) + "\n")


def write_png(path: Path, heard: Sequence[Utterance], title: str) -> None:
    """A dot for each sentence, a bar for the median."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = rows(heard)
    figure, axes = pyplot.subplots(1, len(TIMES), figsize=(10, 3.6), sharey=True)
    names = [f"{page}, {reader}" for page, reader in found]
    for axis, (time, label) in zip(axes, TIMES.items(), strict=True):
        for y, utterances in enumerate(found.values()):
            values = [ms for one in utterances if (ms := getattr(one, time)) is not None]
            axis.plot(values, [y] * len(values), "o", color=f"C{y}", alpha=0.5, markersize=4)
            if values:
                axis.plot([statistics.median(values)] * 2, [y - 0.3, y + 0.3], color=f"C{y}")
        axis.set(xlabel=label, yticks=range(len(names)), yticklabels=names)
        axis.set_xlim(left=0)
        axis.invert_yaxis() if axis is axes[0] else None
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

"""The results as tables and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.peers.contender import CONTENDERS, NEMO, OURS, SHERPA, SHERPA_FP32, SHERPA_PRODUCTS
from bench.peers.rounds import BATCHES

PEERS = (SHERPA, SHERPA_PRODUCTS, SHERPA_FP32)
COLORS = ("#1b6ca8", "#7fb3d5", "#c0392b", "#e08e79", "#f0c4b8", "#7f8c8d")

Chunks = dict[str, dict[str, Any]]
"""By chunk size in ms, by contender: what rounds.compare found."""


def ratios(chunks: Chunks) -> dict[str, Any]:
    """How many times as many streams as sherpa-onnx a core carries here, round by round: as its authors quantise, and
    against whatever precision serves it best in that round."""
    shipped = {chunk: _ratio(found, (SHERPA.name,)) for chunk, found in chunks.items()}
    best = {chunk: _ratio(found, tuple(peer.name for peer in PEERS)) for chunk, found in chunks.items()}
    nemo = {chunk: _ratio(found, (NEMO.name,)) for chunk, found in chunks.items()}
    return {
        "ratios": {chunk: spread["median"] for chunk, spread in shipped.items()},
        "ratios_spread": shipped,
        "ratios_to_best_of_sherpa_onnx": best,
        "ratios_to_nemo": nemo,
    }


def _ratio(found: dict[str, Any], peers: tuple[str, ...]) -> dict[str, float]:
    mine = [r["streams"] for r in found[OURS.name]["rounds"]]
    theirs = zip(*([r["streams"] for r in found[peer]["rounds"]] for peer in peers), strict=True)
    values = sorted(m / max(t) for m, t in zip(mine, theirs, strict=True))
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return {"median": round(middle, 3), "min": round(values[0], 3), "max": round(values[-1], 3)}


def tables(model: str, chunks: Chunks) -> str:
    """The figures in Markdown: results, ratios, all batch sizes."""
    lines = [
        f"### {model}",
        "",
        "| chunk | contender | streams per core: median (min - max) | at batch | step of one stream, ms |"
        " features, ms | RSS at 1 / 32 streams, MB | WER | words as ours fp32 | letters |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for chunk, found in chunks.items():
        lines += [_row(chunk, c.name, found[c.name]) for c in CONTENDERS]
    held = ratios(chunks)
    kinds = ("ratios_spread", "ratios_to_best_of_sherpa_onnx", "ratios_to_nemo")
    lines += [
        "",
        "| chunk | ours int8 / sherpa-onnx int8 | / its best precision | / NeMo |",
        "|---|---|---|---|",
    ]
    for chunk in chunks:
        cells = (held[kind][chunk] for kind in kinds)
        texts = (f"{s['median']:.2f} ({s['min']:.2f} - {s['max']:.2f})" for s in cells)
        lines.append(f"| {chunk} ms | {' | '.join(texts)} |")
    lines += [
        "",
        f"| chunk | streams per core at batch | {' | '.join(map(str, BATCHES))} |",
        f"|---|---|{'---|' * len(BATCHES)}",
    ]
    for chunk, found in chunks.items():
        for c in CONTENDERS:
            sweep = found[c.name]["sweep"]
            row = [f"{sweep[batch]['streams']:.1f}" for batch in BATCHES]
            lines.append(f"| {chunk} ms | {c.name} | {' | '.join(row)} |")
    return "\n".join(lines)


def _row(chunk: str, name: str, r: dict[str, Any]) -> str:
    streams, memory = r["streams_per_core"], r["peak_mb"]
    cells = (
        f"{chunk} ms",
        name,
        f"{streams['median']:.1f} ({streams['min']:.1f} - {streams['max']:.1f})",
        str(r["best_batch"]),
        f"{r['step_at_batch_1_ms']['median']:.1f}",
        f"{r['features_ms']:.2f}",
        f"{memory[str(BATCHES[0])]:.0f} / {memory[str(BATCHES[-1])]:.0f}",
        "-" if r["wer"] is None else f"{r['wer']:.1%}",
        f"{r['words_as_ours_fp32']:.1%}",
        str(r["letters"]),
    )
    return f"| {' | '.join(cells)} |"


def picture(file: Path, machine: str, models: dict[str, Chunks]) -> None:
    """Bars of streams per core with their range over the rounds, one panel for each model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(models), figsize=(7 * len(models), 4.8), squeeze=False, layout="constrained")
    for panel, (model, chunks) in zip(panels[0], models.items(), strict=True):
        width = 0.8 / len(CONTENDERS)
        for i, (contender, color) in enumerate(zip(CONTENDERS, COLORS, strict=True)):
            spreads = [found[contender.name]["streams_per_core"] for found in chunks.values()]
            heights = [s["median"] for s in spreads]
            errors = [[s["median"] - s["min"] for s in spreads], [s["max"] - s["median"] for s in spreads]]
            places = [x + (i - (len(CONTENDERS) - 1) / 2) * width for x in range(len(chunks))]
            panel.bar(places, heights, width * 0.92, yerr=errors, color=color, label=contender.name, ecolor="#333333")
        panel.set_xticks(range(len(chunks)), [f"{chunk} ms" for chunk in chunks])
        panel.set_title(model)
        panel.set_ylabel("streams per core")
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"One thread of {machine}: the same audio and weights", fontsize=10)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)

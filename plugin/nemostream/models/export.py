"""The streaming step as an ONNX graph, traced from torch.

export_step(step, config.encoder, config.mel, Path("step.onnx"))                  # T, B and ring columns stay free
export_step(step.reduce(torch.bfloat16), ..., sizes=Sizes(frames=2, columns=62))  # B alone does
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nemostream.models.step import StreamingStep, input_names, output_names

if TYPE_CHECKING:
    from nemostream.models.config import EncoderConfig, MelConfig
    from nemostream.models.info import EncoderInfo, MelInfo

OPSET = 17
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Sizes:
    """T and C of models/step.py."""

    frames: int
    columns: int


def export_step(
    step: StreamingStep,
    encoder: EncoderInfo | EncoderConfig,
    mel: MelInfo | MelConfig,
    path: Path,
    sizes: Sizes | None = None,
) -> None:
    """Trace `step` with B = 2 and every ring column but the newest masked.

    Args:
        step: in any precision; rings and states are in that of its products.
        sizes: None: all three stay free.
    """
    fixed, sizes = sizes is not None, sizes or Sizes(2, encoder.left_context)
    kept = step.front.convs[1].weight.dtype
    assert isinstance(kept, torch.dtype)
    batch, channels, first = 2, encoder.subsampling_channels, mel.n_mels // 2 + 1
    ring = torch.zeros(batch, encoder.n_heads, sizes.columns, encoder.d_model // encoder.n_heads, dtype=kept)
    tail = torch.zeros(batch, encoder.conv_kernel - 1, encoder.d_model, dtype=kept)
    prompted = step.prompt is not None
    example = (
        torch.zeros(batch, 8 * sizes.frames, mel.n_mels),
        torch.zeros(batch, dtype=torch.int64),
        torch.ones(batch, sizes.columns, dtype=torch.int64),
        *([torch.zeros(batch, dtype=torch.int64)] if prompted else []),
        torch.zeros(batch, 1, mel.n_mels),
        torch.zeros(batch, channels, 1, first, dtype=kept),
        torch.zeros(batch, channels, 1, first // 2 + 1, dtype=kept),
        *(tensor for _ in range(encoder.n_layers) for tensor in (ring, ring, tail)),
    )
    inputs, outputs = input_names(encoder.n_layers, prompted), output_names(encoder.n_layers)
    free: dict[str, dict[int, str]] = {name: {0: "B"} for name in inputs + outputs}
    if not fixed:
        free["mel"][1], free["age"][1], free["enc"][1] = "F", "C", "T"
        for layer in range(encoder.n_layers):
            for kind in "kv":
                free[f"{kind}{layer}"][2], free[f"{kind}{layer}_new"][2] = "C", "T"
    with _silence(), torch.no_grad():
        torch.onnx.export(
            step,
            example,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter warns about every traced shape, on stdout, stderr and in the log; all of them are meant."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with _ONE_AT_A_TIME:  # all of this is the process's
        exporter.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                yield
        finally:
            exporter.setLevel(level)

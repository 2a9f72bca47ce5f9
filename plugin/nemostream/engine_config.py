"""How an engine runs, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["int8", "fp32", "bf16", "fp16"]
Encoder = Literal["onnx", "torch", "tensorrt", "null"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How an engine runs; equal configs share one engine in a process (registry.py).

    Attributes:
        model: what streams get that name none: a name or a path; None: the embedded model.
        precision: "int8" or "fp32"; None: int8 where the bundle holds it. In torch "fp32", "bf16" or "fp16"; None: bf16
            on a GPU.
        threads: of the encoder; None: one per core.
        max_streams: rows, one for each live stream; one more is refused with EngineFull. Batch streams take what is
            left, and wait.
        max_batch: rows of one step at most; None: as many as time allows.
        peek: show what chunks of 560 ms and more hold before they are full, while there is nothing better to do.
        model_memory_mb: what loaded models may take together, by estimate (memory.py); models without streams make
            room for others, those used least recently first, the default one last. None: no limit.
        encoder: "torch" computes in torch on the CPU too; "tensorrt" in TensorRT on a GPU, in torch where that cannot
            be had; "null" computes nothing: to measure all the rest.
        device: "cuda" is a GPU, where torch computes all of a step and the rows are.
    """

    model: str | None = None
    precision: Precision | None = None
    threads: int | None = None
    max_streams: int = 256
    max_batch: int | None = None
    peek: bool = True
    model_memory_mb: int | None = None
    encoder: Encoder = "onnx"
    device: Device = "cpu"

"""Models for a machine that has torch and numpy and nothing else: no bundle is read, nothing is decoded or downloaded.

source = drawn("nemotron-0.6b", chunk_frames=(1, 2, 7, 14), seed=0)      # random weights that say something
source = embedded()                                                      # the model that ships
model = source.on("cuda", "bf16")                                        # what DeviceGroup asks of a Model
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from bench.gpu.speech import tones
from bench.random_model import CONV_KERNEL, LEFT_CONTEXT, SHAPES, Shape
from bench.random_weights import TUNING_SECONDS, TUNING_STREAMS, draw_weights, triangles
from nemostream.device.group import DeviceGroup
from nemostream.encoders import Floats
from nemostream.encoders.torch import TorchBackend
from nemostream.mel import MelFilters
from nemostream.models.checkpoint import FILTERS, WINDOW, Checkpoint
from nemostream.models.config import ConformerConfig, EncoderConfig, MelConfig, TransducerConfig
from nemostream.models.decoder_weights import decoder_weights
from nemostream.models.initializers import read_initializers
from nemostream.models.restore import make_step
from nemostream.models.step import StreamingStep

ASSETS = Path(__file__).resolve().parent.parent.parent / "plugin" / "nemostream" / "assets" / "en-starter"
FLUSH_FRAMES = 4
"""Of the silence behind a flush: 320 ms."""


@dataclass(frozen=True, slots=True)
class Info:
    """What of models.info.ModelInfo a step needs."""

    name: str
    mel: MelConfig
    encoder: EncoderConfig
    transducer: TransducerConfig
    chunk_frames: tuple[int, ...]
    vocab_size: int
    max_symbols: int = 10
    decoders: tuple[str, ...] = ("rnnt",)
    prompts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """Stands where a Bundle does."""

    info: Info
    weights: Mapping[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A model in memory: `step` makes its streaming step, in float32."""

    info: Info
    weights: Mapping[str, Floats]
    step: Callable[[], StreamingStep]

    def on(self, device: str, precision: str) -> OnDevice:
        """Raises DeviceError, EngineFull: see TorchBackend."""
        return OnDevice(self, TorchBackend(cast(Any, self.info), self.step(), precision, device))


@dataclass(frozen=True, eq=False)
class OnDevice:
    """Stands where a Model does."""

    source: Source
    backend: TorchBackend
    frame_ms: int = 80

    @cached_property
    def bundle(self) -> Loaded:
        return Loaded(self.source.info, self.source.weights)

    @cached_property
    def mel(self) -> MelFilters:
        weights = self.source.weights
        return MelFilters(weights["mel.filters"], weights["mel.window"])

    def spare_frames(self, chunk_frames: int) -> int:
        return -(-FLUSH_FRAMES // chunk_frames) * chunk_frames

    def decoder_name(self, wanted: str | None) -> str:
        return wanted or "rnnt"

    def group(self, chunk_frames: int, capacity: int) -> DeviceGroup:
        return DeviceGroup("bench", cast(Any, self), chunk_frames, capacity)


def drawn(shape: str, seed: int = 0) -> Source:
    """Random weights of that shape (bench.random_model.SHAPES, or "tiny" for tests)."""
    wanted = TINY if shape == "tiny" else SHAPES[shape]
    config = config_of(wanted)
    front = {WINDOW: torch.hann_window(config.mel.win, periodic=False), FILTERS: triangles(config.mel.n_mels)}
    streams, seconds = (4, 8.0) if shape == "tiny" else (TUNING_STREAMS, TUNING_SECONDS)
    talk = [tones(stream, seconds) for stream in range(streams)]
    with torch.no_grad():
        state = draw_weights(config, front, np.random.default_rng(seed), talk)
    checkpoint = Checkpoint(Path(shape), config, state)
    model = checkpoint.model(share=True).requires_grad_(False)
    assert config.transducer is not None
    encoder = config.encoder
    info = Info(shape, config.mel, encoder, config.transducer, encoder.chunk_frames, len(config.tokens))
    return Source(
        info, decoder_weights(checkpoint, model), lambda: StreamingStep(model.encoder).eval().requires_grad_(False)
    )


TINY = Shape(2, 64, 2, 16, 80, (13, 6, 1, 0), 32, 1, 40, "", ctc=True)


def embedded() -> Source:
    """The model that ships: what int8 left of its matrices."""
    manifest = json.loads((ASSETS / "model.json").read_text())
    its, mel, transducer = manifest["encoder"], manifest["mel"], manifest["transducer"]
    chunks = tuple(manifest["chunk_frames"])
    encoder = EncoderConfig(
        mel["n_mels"], lookaheads=tuple(t - 1 for t in chunks), lookahead_weights=(1.0,) * len(chunks), **its
    )
    info = Info(
        manifest["name"], MelConfig(**mel), encoder, TransducerConfig(**transducer), chunks, manifest["vocab_size"]
    )
    found = read_initializers(ASSETS / "encoder.int8.onnx")
    weights: dict[str, Floats] = {}
    for name, array in found.items():
        if name.endswith(".int8"):
            whole = name.removesuffix(".int8")
            weights[whole] = array.astype(np.float32) * found[f"{whole}.scale"]
        elif f"{name.removesuffix('.scale')}.int8" not in found and name.startswith(("front", "layers")):
            weights[name] = array
    with np.load(ASSETS / "weights.npz") as heads:
        return Source(info, dict(heads), lambda: make_step(cast(Any, info), weights, "the embedded model"))


def config_of(shape: Shape) -> ConformerConfig:
    """Of a .nemo of that shape."""
    encoder = EncoderConfig(
        n_mels=shape.mels,
        n_layers=shape.layers,
        d_model=shape.d_model,
        n_heads=shape.heads,
        left_context=LEFT_CONTEXT,
        lookaheads=shape.lookaheads,
        lookahead_weights=(1 / len(shape.lookaheads),) * len(shape.lookaheads),
        conv_kernel=CONV_KERNEL,
        subsampling_channels=shape.channels,
        xscaling=shape.bias,
        use_bias=shape.bias,
    )
    transducer = TransducerConfig(shape.pred_hidden, shape.pred_layers, shape.pred_hidden)
    tokens = tuple(f"piece{i}" for i in range(shape.vocabulary + len(shape.specials)))
    head = "ctc_decoder" if shape.ctc else None
    return ConformerConfig(MelConfig(shape.mels), encoder, transducer, head, tokens)

"""The streaming step in torch against NeMo offline: every chunk size, streams that start at different ticks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nemostream.encoders import Floats, Indices
from nemostream.encoders.state import RowArrays
from nemostream.models.bundle import Bundle
from nemostream.models.heads import ConformerModel
from nemostream.models.step import StreamingStep, input_names, output_names
from tests.models.conftest import Golden
from tests.models.streaming import encode

TOLERANCE = 1e-5
"""Rounding of float32 through all layers; processors sum in different orders, and 5.01e-6 is the most that was seen."""


class TorchRows:
    """EncoderRows over the torch module; only tests run it this way."""

    def __init__(self, model: ConformerModel, bundle: Bundle, chunk_frames: int, capacity: int, spare: int) -> None:
        self.chunk_frames, self.capacity = chunk_frames, capacity
        self.state = RowArrays(bundle.info.encoder, bundle.info.mel, chunk_frames, capacity, spare)
        self.module = StreamingStep(model.encoder).eval()
        layers = bundle.info.encoder.n_layers
        self.names, self.news = input_names(layers)[3:], output_names(layers)
        self.reset, self.move = self.state.reset, self.state.move
        self.save, self.restore = self.state.save, self.state.restore
        for ring in self.state.rings:  # what an earlier stream left must not matter
            ring[:] = np.random.RandomState(3).randn(*ring.shape)

    def arrays(self, rings: list[Floats], small: list[Floats]) -> dict[str, Floats]:
        layers = range(len(rings) // 2)
        return dict(zip([f"{kind}{i}" for i in layers for kind in "kv"], rings, strict=True)) | dict(
            zip(["s0", "s1", "s2", *(f"c{i}" for i in layers)], small, strict=True)
        )

    def step(self, rows: int | Indices, mel: Floats) -> Floats:
        self.batch = np.arange(rows) if isinstance(rows, int) else rows
        held = self.arrays(self.state.rings, self.state.small)
        tensors = [mel, self.state.left(self.batch), self.state.age(self.batch)]
        tensors += [held[name][self.batch] for name in self.names]
        with torch.no_grad():
            out = self.module(*map(torch.from_numpy, tensors))
        self.new = dict(zip(self.news, (tensor.numpy() for tensor in out), strict=True))
        return self.new["enc"]

    def commit(self, positions: Indices) -> None:
        layers = range(len(self.state.rings) // 2)
        rings = [self.new[f"{kind}{i}_new"] for i in layers for kind in "kv"]
        small = [self.new[f"{name}_new"] for name in ("s0", "s1", "s2", *(f"c{i}" for i in layers))]
        self.state.commit(self.batch[positions], rings, small, positions)


def worst(found: list[Floats], expected: list[Floats]) -> float:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("spare", [0, 5])
def test_streaming_equals_nemo_offline(golden: Golden, spare: int) -> None:
    model = golden.model()
    for lookahead in golden.lookaheads:
        rows = TorchRows(model, golden.bundle, lookahead + 1, 3, spare)
        found = encode(rows, golden.mels, starts=[0, 2, 5], order=np.random.RandomState(0))
        assert worst(found, golden.encoded(lookahead)) < TOLERANCE


def test_a_wrong_mask_would_be_seen(golden: Golden) -> None:
    """The check above must be sharp enough: one column too many, or columns of the stream before, fail it."""
    model = golden.model()
    lookahead = golden.lookaheads[0]
    for damage in ("window", "empty"):
        rows = TorchRows(model, golden.bundle, lookahead + 1, 3, 5)
        if damage == "window":
            rows.state.window += 1
        else:
            age = rows.state.age
            rows.state.age = lambda index, age=age: np.maximum(age(index), 1)  # type: ignore[method-assign]
        assert worst(encode(rows, golden.mels), golden.encoded(lookahead)) > 100 * TOLERANCE

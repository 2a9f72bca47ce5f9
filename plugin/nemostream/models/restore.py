"""A bundle's streaming step in torch again, from the weights in its graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from nemostream.encoders import Floats
from nemostream.errors import BundleError
from nemostream.models.config import EncoderConfig
from nemostream.models.conformer import ConformerEncoder
from nemostream.models.step import StreamingStep

if TYPE_CHECKING:
    from nemostream.models.info import ModelInfo


def make_step(info: ModelInfo, weights: Mapping[str, Floats], where: str) -> StreamingStep:
    """The streaming step of a bundle with these weights (its state dict), in eval mode.

    Raises:
        BundleError: they are not those of a step of these shapes; `where` names them.
    """
    encoder = info.encoder
    if "layers.0.feed1.0.weight" not in weights:
        raise BundleError(f"{where}: the graph is not that of a streaming step; convert the model again.")
    config = EncoderConfig(
        n_mels=info.mel.n_mels,
        n_layers=encoder.n_layers,
        d_model=encoder.d_model,
        n_heads=encoder.n_heads,
        left_context=encoder.left_context,
        lookaheads=tuple(t - 1 for t in info.chunk_frames),
        lookahead_weights=(1.0,) * len(info.chunk_frames),
        ff_expansion=weights["layers.0.feed1.0.weight"].shape[1] // encoder.d_model,
        conv_kernel=encoder.conv_kernel,
        subsampling_channels=encoder.subsampling_channels,
        use_bias="layers.0.feed1.0.bias" in weights,
        xscaling=False,  # it is in the weights already
    )
    with torch.device("meta"):
        kernel = None
        if "prompt.rows" in weights:
            places, hidden = weights["prompt.rows"].shape
            first = nn.Linear(encoder.d_model + places, hidden)
            kernel = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, encoder.d_model))
        step = StreamingStep(ConformerEncoder(config), kernel)
    try:
        # Copies: what was read from a file's pages cannot be written, and torch says so each time.
        step.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()}, assign=True)
    except RuntimeError as error:
        raise BundleError(f"{where}: {' '.join(str(error).split())[:300]}; convert the model again.") from error
    return step.eval().requires_grad_(False)

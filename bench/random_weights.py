"""Random weights for a FastConformer that stay finite, follow the audio, and say a word now and then.

state = draw_weights(config, {WINDOW: window, FILTERS: filters}, np.random.default_rng(0))

The encoder is plainly random. The heads are not quite: a predictor that is random falls silent for good, or says ten
tokens on one frame, which no trained one does and which would make decoding look far too dear. Here it remembers what
was said lately and makes that less likely; the blank's bias is found by decoding speech.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nemostream.encoders import Floats
from nemostream.greedy import CtcDecoder, Decoder, RnntDecoder
from nemostream.mel import MelFilters
from nemostream.models.checkpoint import FILTERS, WINDOW, Checkpoint
from nemostream.models.config import ConformerConfig
from nemostream.models.decoder_weights import decoder_weights
from nemostream.protocol import Samples

if TYPE_CHECKING:
    from torch import Tensor

    from nemostream.models.heads import ConformerModel

TOKENS_PER_SECOND = 4.0
"""Of speech without pauses: what English in pieces of 1024 comes to, about."""
TUNING_SECONDS, TUNING_STREAMS, BISECTIONS = 12.0, 16, 14
FRAME_SECONDS = 0.08
NOISE = 3e-4
"""Standard deviation of what is heard in a pause: a quiet room, not digital silence."""
SHARPNESS = 3.0
"""Deviation of the logits."""
DIRECTIONS = 48
SILENCE = 2.0
"""By how many deviations the blank is likelier in silence."""
FADING = 0.7
"""How much the predictor remembers of a token once the next one is said."""
REFRAIN = 4.0
"""By how many deviations a token's logit falls when it has been said."""
ATTENTION = 0.3
"""Attention adds less than the rest of a layer: with random weights it is an average, the same for all frames."""


def draw_weights(
    config: ConformerConfig,
    front: dict[str, Tensor],
    rng: np.random.Generator,
    talk: Sequence[Samples] | None = None,
) -> dict[str, Tensor]:
    """The state dict of a .nemo.

    Args:
        front: its mel window and filters.
        talk: speech without pauses, streams of one length; None: that of bench.speech, which has to be decoded.
    """
    import torch

    from nemostream.models.heads import ConformerModel

    model = ConformerModel(config).eval().requires_grad_(False)
    state = model.state_dict()
    for name, value in state.items():
        value.copy_(torch.from_numpy(_draw(name, tuple(value.shape), rng)))
    for layer in range(config.encoder.n_layers):
        state[f"encoder.layers.{layer}.self_attn.linear_out.weight"] *= ATTENTION
    mels = MelFilters(front[FILTERS][0].numpy(), front[WINDOW].numpy())
    talk = list(talk or _talk())
    talk.append((NOISE * rng.standard_normal(len(talk[0]))).astype(np.float32))
    mel = torch.from_numpy(np.stack([mels.whole(samples) for samples in talk]))
    _centre(model, mel)
    lookahead = sorted(config.encoder.lookaheads)[len(config.encoder.lookaheads) // 2]
    encoded, _ = model.encoder(mel, _lengths(mel), lookahead)
    # A stream's beginning, which has little context, is not typical.
    encoded = encoded[:, config.encoder.left_context :]
    # The blank is set by other speech than the heads were: what they were fitted to excites them more than any other.
    half = (len(talk) - 1) // 2
    encoded, unheard, quiet = encoded[:half].contiguous(), encoded[half:-1].contiguous(), encoded[-1:]
    state |= front
    checkpoint = Checkpoint(Path("random"), config, state)
    transducer = config.transducer
    if transducer:
        _make_transducer(model, encoded, quiet)
        last = max(name for name in state if name.startswith("joint.joint_net."))  # ends in weight
        _make_head(
            (state[last], state[last.replace("weight", "bias")]),
            torch.relu(model.joint.enc(encoded)).flatten(0, 1),
            torch.relu(model.joint.enc(quiet)).flatten(0, 1),
            unheard,
            lambda rows: RnntDecoder(decoder_weights(checkpoint, model), transducer.max_symbols, rows),
        )
    if config.ctc_prefix:
        head = f"{config.ctc_prefix}.decoder_layers.0"
        _make_head(
            (state[f"{head}.weight"], state[f"{head}.bias"]),
            encoded.flatten(0, 1),
            quiet.flatten(0, 1),
            unheard,
            lambda rows: CtcDecoder(decoder_weights(checkpoint, model), rows),
        )
    return state


def triangles(mels: int) -> Tensor:
    """Mel filters, evenly spaced in mel and of equal area: (1, mels, 257)."""
    import torch

    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), mels + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    hertz = np.linspace(0, 8000, 257)[None]
    sides = np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle))
    return torch.from_numpy((np.maximum(0, sides) * 2 / (high - low)).astype(np.float32)[None])


def _talk() -> list[Samples]:
    from bench.speech import conversation

    return [conversation(stream, TUNING_SECONDS, share=1.0) for stream in range(TUNING_STREAMS)]


def _draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    value: Floats = rng.standard_normal(shape, np.float32)
    if len(shape) == 1 or "pos_bias" in name:
        value *= np.float32(0.1)
        if "norm" in name and name.endswith("weight"):
            value += 1
        return value
    value /= np.sqrt(np.prod(shape[1:], dtype=np.float32))
    return value


def _lengths(mel: Tensor) -> Tensor:
    import torch

    return torch.tensor([mel.shape[1]] * len(mel))


def _centre(model: ConformerModel, mel: Tensor) -> None:
    """Take out of the front end what all frames of `mel` (B, F, n_mels) have in common, and bring the rest to 1."""
    front = model.encoder.pre_encode
    frames, _ = front(mel, _lengths(mel))
    level = model.config.encoder.d_model**-0.5 if model.config.encoder.xscaling else 1.0
    _standardise(front.out.weight, front.out.bias, frames.flatten(0, 1), level, front.out.bias)


def _standardise(weight: Tensor, bias: Tensor, outputs: Tensor, level: float, already: Tensor | float = 0.0) -> None:
    """Scale `weight` and set `bias`, in place, so that their `outputs` (N, out) get mean 0 and deviation `level`;
    `already`: the bias that is in them."""
    mean = outputs.mean(0)
    scale = level / (outputs - mean).std()
    bias.copy_((already - mean) * scale)
    weight.mul_(scale)


def _make_transducer(model: ConformerModel, encoded: Tensor, quiet: Tensor) -> None:
    """Joint and predictor: the joint hears mostly the encoder; a token that was just said counts against itself."""
    import torch

    state = model.state_dict()
    joint, out = model.joint, state[max(name for name in state if name.startswith("joint.joint_net."))]
    frames = encoded.flatten(0, 1)
    # The first directions in which frames differ, all to the same extent: else one of them decides, and every stream
    # says the same tokens in the same order.
    _, levels, directions = torch.linalg.svd(frames - frames.mean(0), full_matrices=False)
    mixed = joint.enc.weight @ directions[:DIRECTIONS].T
    joint.enc.weight.copy_(mixed @ (directions[:DIRECTIONS] / levels[:DIRECTIONS, None]))
    _standardise(joint.enc.weight, joint.enc.bias, frames @ joint.enc.weight.T, 1.0)
    joint.enc.bias.add_(1)  # most of it passes the ReLU
    joint.pred.bias.zero_()
    hidden = joint.pred.in_features
    tokens = out[:-1] * hidden**0.5  # (V, J), entries of deviation 1
    state["decoder.prediction.embed.weight"][:-1] = tokens / 2
    state["decoder.prediction.embed.weight"][-1] = 0
    lstm = {name: value for name, value in state.items() if ".dec_rnn.lstm." in name}
    for name, value in lstm.items():
        value *= 0.1
        if "weight_ih" in name:
            value.view(4, hidden, hidden)[2] += torch.eye(hidden)
        elif "bias_ih" in name:  # of the gates input, forget, cell, output
            value.view(4, hidden)[[0, 3]] += 3
            value.view(4, hidden)[1] += np.log(FADING / (1 - FADING)) if name.endswith("l0") else -4.0
    joint.pred.weight.mul_(0.1)
    joint.pred.weight -= torch.eye(hidden) * (2 * REFRAIN / hidden**0.5)
    # What was said must not look like silence, which is what the blank goes by (see _make_head).
    heard, unheard = (torch.relu(joint.enc(x)).flatten(0, 1).mean(0) for x in (encoded, quiet))
    silence = (unheard - heard) / (unheard - heard).norm()
    joint.pred.weight -= torch.outer(silence, silence @ joint.pred.weight)


def _make_head(
    head: tuple[Tensor, Tensor],
    inputs: Tensor,
    quiet: Tensor,
    encoded: Tensor,
    decoder: Callable[[int], Decoder],
) -> None:
    """Scale an output layer and find the blank's bias at which `encoded` (B, T, D) gives TOKENS_PER_SECOND.

    Args:
        head: its weight and bias.
        inputs, quiet: (N, in), what it is given on speech and in silence.
    """
    weight, bias = head
    flat = weight.flatten(1)
    _standardise(flat, bias, inputs @ flat.T, SHARPNESS)
    # The blank is as likely after one token as after another, else a stream speaks all the time or never; and likelier
    # in silence than in speech.
    apart = quiet.mean(0) - inputs.mean(0)
    weight[-1] = (SILENCE * SHARPNESS / (apart @ apart) * apart).reshape(weight[-1].shape)
    low, high = 0.0, 10 * SHARPNESS
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        bias[-1] = middle
        often = _tokens_per_second(decoder(len(encoded)), encoded.numpy()) > TOKENS_PER_SECOND
        low, high = (middle, high) if often else (low, middle)


def _tokens_per_second(decoder: Decoder, encoded: Floats) -> float:
    batch, frames, _ = encoded.shape
    for row in range(batch):
        decoder.reset(row)
    tokens = decoder.step(np.arange(batch), encoded, np.full(batch, frames))
    settled = sum(
        token.frame >= frames // 2 for row in tokens for token in row
    )  # a predictor that knows nothing says more
    return float(settled / (batch * (frames - frames // 2) * FRAME_SECONDS))

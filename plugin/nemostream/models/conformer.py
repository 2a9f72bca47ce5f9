"""The FastConformer encoder in torch, offline: for training, and as the source of the streaming step (step.py).

    encoder = ConformerEncoder(config.encoder)
    encoder.load_state_dict(weights)                       # NeMo's names without the prefix "encoder."
    enc, lengths = encoder(mel, mel_lengths, lookahead=13)

Parameters carry NeMo's names, so that a .nemo loads as it is and what was trained here is saved as a real .nemo.
With the chunked-limited mask a chunk of lookahead + 1 frames sees itself and floor(left / T) whole chunks before it:
the same context as the streaming step, hence the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from nemostream.models.config import EncoderConfig

MASKED = -1e4
"""Score of a key that may not be seen (NeMo's INF_VAL): its softmax weight is exactly zero in float32."""


class CausalConv2d(nn.Conv2d):
    """Kernel 3, stride 2, over what is padded 2 before and 1 behind in time and frequency: output j sees 2j-2 .. 2j."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, groups=groups)


class ValidRelu(torch.autograd.Function):
    """relu(x) * valid, padded for the next CausalConv2d: x (B, C, T, W), valid (B, T) of 0 and 1.

    Gives (B, C, T + 3, W + 3). These are the largest tensors of all: as three operations the front end's part of a
    training step takes a CPU half as long again.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, valid: Tensor) -> Tensor:
        rows, channels, frames, width = x.shape
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        size = rows, channels, frames + 3, width + 3
        out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
        out[:, :, :2], out[:, :, -1:], out[..., :2], out[..., -1:] = 0, 0, 0, 0
        out[:, :, 2:-1, 2:-1].copy_(x).clamp_(min=0).mul_(valid[:, None, :, None])
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad[:, :, 2:-1, 2:-1], out[:, :, 2:-1, 2:-1], 0), None


class Subsampling(nn.Module):
    """8x in time: three strided stages, the last two depthwise and then pointwise."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = config.subsampling_channels
        self.conv = nn.Sequential(
            CausalConv2d(1, channels, groups=1),
            nn.ReLU(),
            CausalConv2d(channels, channels, groups=channels),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            CausalConv2d(channels, channels, groups=channels),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
        )
        self.out = nn.Linear(channels * config.frequencies[2], config.d_model)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """mel (B, F, n_mels), lengths (B,) -> (B, T', D), (B,). Frames past a row's length are zeroed behind every
        stage: otherwise a row would depend on how far its batch was padded."""
        x = F.pad(mel.unsqueeze(1) * _valid(lengths, mel.shape[1])[:, None, :, None], (2, 1, 2, 1))
        for layer in self.conv:
            if isinstance(layer, nn.ReLU):
                x = ValidRelu.apply(x, _valid(lengths, x.shape[2]))
                continue
            x = layer(x)
            if isinstance(layer, CausalConv2d):
                lengths = lengths // 2 + 1
        out: Tensor = self.out(x[:, :, 2:-1, 2:-1].transpose(1, 2).flatten(2))
        return out, lengths


class RelativeAttention(nn.Module):
    """Multi-head attention with Transformer-XL position scores (https://arxiv.org/abs/1901.02860, section 3.3)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d, heads, bias = config.d_model, config.n_heads, config.use_bias
        self.heads, self.d_head = heads, d // heads
        self.linear_q = nn.Linear(d, d, bias=bias)
        self.linear_k = nn.Linear(d, d, bias=bias)
        self.linear_v = nn.Linear(d, d, bias=bias)
        self.linear_out = nn.Linear(d, d, bias=bias)
        self.linear_pos = nn.Linear(d, d, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, d // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, d // heads))
        self.dropout = nn.Dropout(config.dropout_att)

    def forward(self, x: Tensor, positions: Tensor, hidden: Tensor) -> Tensor:
        """x (B, T, D); positions (2T-1, D), distances T-1 .. -(T-1); hidden (B, T, T), true where a key is not seen."""
        q = self.split(self.linear_q(x))
        k, v = self.split(self.linear_k(x)), self.split(self.linear_v(x))
        p = self.linear_pos(positions).view(-1, self.heads, self.d_head).permute(1, 2, 0)
        content = (q + self.pos_bias_u[:, None]) @ k.transpose(2, 3)
        position = _by_distance((q + self.pos_bias_v[:, None]) @ p)
        scores = (content + position) / math.sqrt(self.d_head)
        # A row of padding sees no key at all: its softmax is uniform, and is zeroed afterwards.
        weights = torch.softmax(scores.masked_fill(hidden[:, None], MASKED), -1).masked_fill(hidden[:, None], 0.0)
        out: Tensor = self.linear_out((self.dropout(weights) @ v).transpose(1, 2).flatten(2))
        return out

    def split(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, d_head)."""
        return x.view(x.shape[0], x.shape[1], self.heads, self.d_head).transpose(1, 2)


class Convolution(nn.Module):
    """Pointwise, GLU, causal depthwise, layer norm (named batch_norm in NeMo's checkpoints), SiLU, pointwise."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d, kernel, bias = config.d_model, config.conv_kernel, config.use_bias
        self.kernel = kernel
        self.pointwise_conv1 = nn.Conv1d(d, 2 * d, 1, bias=bias)
        self.depthwise_conv = nn.Conv1d(d, d, kernel, groups=d, bias=bias)
        self.batch_norm = nn.LayerNorm(d)
        self.pointwise_conv2 = nn.Conv1d(d, d, 1, bias=bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, T, D), valid (B, T) of 0 and 1."""
        x = F.glu(_pointwise(self.pointwise_conv1, x), 2) * valid[:, :, None]
        x = self.depthwise_conv(F.pad(x.transpose(1, 2), (self.kernel - 1, 0)))
        x = F.silu(self.batch_norm(x.transpose(1, 2)))
        return _pointwise(self.pointwise_conv2, x)


def _pointwise(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A kernel of 1 over (B, T, D) as the product that it is: on a CPU a quarter of the convolution's time."""
    return F.linear(x, layer.weight.squeeze(2), layer.bias)


class FeedForward(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        wide = config.d_model * config.ff_expansion
        self.linear1 = nn.Linear(config.d_model, wide, bias=config.use_bias)
        self.linear2 = nn.Linear(wide, config.d_model, bias=config.use_bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.dropout(F.silu(self.linear1(x))))
        return out


class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward; each on a normed branch."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d = config.d_model
        self.norm_feed_forward1, self.feed_forward1 = nn.LayerNorm(d), FeedForward(config)
        self.norm_self_att, self.self_attn = nn.LayerNorm(d), RelativeAttention(config)
        self.norm_conv, self.conv = nn.LayerNorm(d), Convolution(config)
        self.norm_feed_forward2, self.feed_forward2 = nn.LayerNorm(d), FeedForward(config)
        self.norm_out = nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor, hidden: Tensor, valid: Tensor) -> Tensor:
        x = x + 0.5 * self.dropout(self.feed_forward1(self.norm_feed_forward1(x)))
        x = x + self.dropout(self.self_attn(self.norm_self_att(x), positions, hidden))
        x = x + self.dropout(self.conv(self.norm_conv(x), valid))
        x = x + 0.5 * self.dropout(self.feed_forward2(self.norm_feed_forward2(x)))
        out: Tensor = self.norm_out(x)
        return out


class ConformerEncoder(nn.Module):
    """Mel in, encoder frames of 80 ms out."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.pre_encode = Subsampling(config)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.n_layers))
        self.dropout = nn.Dropout(config.dropout_pre_encoder)
        self.dropout_positions = nn.Dropout(config.dropout_emb)

    def forward(self, mel: Tensor, lengths: Tensor, lookahead: int) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
            mel: (B, F, n_mels) float32 log-mel; frames past a row's length are ignored.
            lengths: (B,) int64, mel frames of each row.
            lookahead: right context in encoder frames; training draws one from config.lookaheads per batch.

        Returns:
            (B, T', D) with T' = F // 2 // 2 // 2 + 1 for most F, and (B,) int64, the valid frames of each row.
        """
        x, lengths = self.pre_encode(mel, lengths)
        if self.config.xscaling:
            x = x * math.sqrt(self.config.d_model)
        frames = x.shape[1]
        distances = torch.arange(frames - 1, -frames, -1, device=x.device)
        positions = self.dropout_positions(position_table(distances, self.config.d_model)).to(x.dtype)
        valid = _valid(lengths, frames)
        hidden = ~self._seen(frames, lookahead + 1, x.device) | (valid[:, None, :] * valid[:, :, None] == 0)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, positions, hidden, valid.to(x.dtype))
        return x, lengths

    def _seen(self, frames: int, chunk: int, device: torch.device) -> Tensor:
        """(T, T): may frame i see frame j? Yes within its own chunk and floor(left / chunk) chunks before it."""
        index = torch.arange(frames, device=device) // chunk
        behind = index[:, None] - index[None, :]
        return (behind >= 0) & (behind <= self.config.left_context // chunk)


def position_table(distances: Tensor, d_model: int) -> Tensor:
    """Sinusoids of the distance query - key: (R,) -> (R, D), sine in even columns, cosine in odd ones."""
    steps = torch.arange(0, d_model, 2, dtype=torch.float32, device=distances.device)
    angles = distances[:, None].float() * torch.exp(steps * -(math.log(10000.0) / d_model))
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


def _valid(lengths: Tensor, frames: int) -> Tensor:
    """(B,) -> (B, frames) float32, 1 before a row's length."""
    return (torch.arange(frames, device=lengths.device) < lengths[:, None]).float()


def _by_distance(x: Tensor) -> Tensor:
    """(B, H, T, 2T-1) scores by distance T-1 .. -(T-1) -> (B, H, T, T) scores by key: row i starts at T-1-i."""
    batch, heads, frames, distances = x.shape
    x = F.pad(x, (1, 0)).reshape(batch, heads, distances + 1, frames)
    return x[:, :, 1:].reshape(batch, heads, frames, distances)[..., :frames]

"""The streaming step: the encoder over one chunk of every row, given what each row remembers. Exported by convert.py.

    step = StreamingStep(encoder)
    enc, s0, s1, s2, k0, v0, c0, k1, ... = step(mel, left, age, s0, s1, s2, k0, v0, c0, k1, ...)

T, B and the number of ring columns C are free. The graph returns only what is new; the caller writes it into its rings:

    mel    (B, 8T, n_mels)   log-mel frames [8Tk-7, 8Tk+8T-8] of chunk k
    left   (B,) int64        how many of them lie before the stream: 7 at a row's first chunk, else 0
    age    (B, C) int64      frames between ring column and chunk start, 1 the newest; 0 masks a column
    prompt (B,) int64        place of the row's language in the prompt; only where the model takes one
    s0     (B, 1, n_mels)    last input row of each strided stage: mel,
    s1, s2 (B, ch, 1, f)     and the two behind it
    k{i}, v{i} (B, H, C, dk) rings of keys and values -> new ones (B, H, T, dk)
    c{i}   (B, K-1, D)       tail of the depthwise convolution -> the new tail

All constants (scale of the scores, xscaling, position projections) are folded into the weights here, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemostream.models.config import EncoderConfig
from nemostream.models.conformer import (
    MASKED,
    ConformerEncoder,
    ConformerLayer,
    Convolution,
    FeedForward,
    RelativeAttention,
    position_table,
)

PREROLL = 7
"""Mel frames of chunk 0 that lie before the stream."""


def input_names(n_layers: int, prompted: bool = False) -> list[str]:
    """Names of the graph's inputs, in order."""
    return ["mel", "left", "age", *(["prompt"] if prompted else []), *state_names(n_layers)]


def output_names(n_layers: int) -> list[str]:
    """Names of the graph's outputs, in order."""
    return ["enc"] + [f"{name}_new" for name in state_names(n_layers)]


def state_names(n_layers: int) -> list[str]:
    """Names of what a row remembers: the front end's rows, then rings and convolution tail of every layer."""
    return ["s0", "s1", "s2"] + [f"{kind}{i}" for i in range(n_layers) for kind in "kvc"]


def state_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Per-row shapes of the front end's state."""
    first, second, _ = config.frequencies
    channels = config.subsampling_channels
    return {"s0": (1, config.n_mels), "s1": (channels, 1, first), "s2": (channels, 1, second)}


@dataclass(frozen=True, eq=False)
class _Chunk:
    """What all layers need to know of the step.

    Attributes:
        mask: (B, 1, 1, C) to add to the scores of ring columns.
        behind, within: (B, H, T, C) and (B, H, T, T) columns of the position tables, for keys of ring and chunk.
        windows: (T, K) frames that each convolution sees, of the tail and the chunk.
    """

    batch: int
    frames: int
    columns: int
    mask: Tensor
    behind: Tensor
    within: Tensor
    windows: Tensor


class StreamingStep(nn.Module):
    """Shares no memory with the encoder it was made from; holds constants, no parameters."""

    def __init__(self, encoder: ConformerEncoder, prompt_kernel: nn.Sequential | None = None) -> None:
        """`prompt_kernel`: ConformerModel's, where the model takes a language prompt."""
        super().__init__()
        config = encoder.config
        self.left_context, self.longest = config.left_context, max(config.chunk_frames)
        self.heads, self.kernel, self.width = config.n_heads, config.conv_kernel, config.d_model
        self.front = _FrontEnd(encoder)
        # Distances query - key that occur: -(longest-1) in a chunk, left_context + longest - 1 to the oldest column.
        distances = torch.arange(1 - self.longest, config.left_context + self.longest)
        table = position_table(distances, config.d_model)
        layers = [layer for layer in encoder.layers if isinstance(layer, ConformerLayer)]
        self.layers = nn.ModuleList(_Layer(layer, table) for layer in layers)
        self.prompt = _Prompt(prompt_kernel, config.d_model) if prompt_kernel is not None else None

    def forward(self, mel: Tensor, left: Tensor, age: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        prompt, rest = (None, rest) if self.prompt is None else (rest[0], rest[1:])
        return self.encode(mel, left, age, prompt, rest[:3], lambda layer: rest[3 + 3 * layer : 6 + 3 * layer])

    def encode(
        self,
        mel: Tensor,
        left: Tensor,
        age: Tensor,
        prompt: Tensor | None,
        front: Sequence[Tensor],
        remembered: Callable[[int], Sequence[Tensor]],
    ) -> tuple[Tensor, ...]:
        """`forward` with what a layer remembers asked for when it is that layer's turn.

        Args:
            front: s0, s1, s2.
            remembered: k, v, c of the layer of that number.
        """
        x, *new = self.front(mel, left, *front)
        if x.dtype != mel.dtype:
            x = x.to(mel.dtype)  # what the layers add to is float32 whatever they compute in
        chunk = self._chunk(mel.shape[0], age, mel.shape[1] // 8)
        for index, layer in enumerate(self.layers):
            x, *columns = layer(x, chunk, *remembered(index))
            new += columns
        if self.prompt is not None:
            assert prompt is not None
            x = _as(self.prompt(x, prompt, chunk), mel)
        return (x.view(chunk.batch, chunk.frames, self.width), *new)

    def reduce(self, dtype: torch.dtype) -> StreamingStep:
        """Compute and remember in `dtype`, in place. What adds up over the layers stays in float32, as under torch's
        autocast: the residual branch, norms, softmax; and what hears the mel, whose values are large."""
        self.to(dtype)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.float()
        self.front.convs[0].float()
        return self

    def _chunk(self, batch: int, age: Tensor, frames: int) -> _Chunk:
        columns = age.shape[1]
        t = torch.arange(frames, device=age.device)
        mask = (age < 1).float()[:, None, None, :] * MASKED
        zero = self.longest - 1  # column of distance 0 in the position tables
        # Masked columns may carry any age: the clamp only keeps the gather inside the table.
        behind = (age[:, None, None, :] + t[None, None, :, None] + zero).clamp(0, self.left_context + 2 * zero)
        within = (t[:, None] - t[None, :] + zero)[None, None]
        return _Chunk(
            batch,
            frames,
            columns,
            mask,
            behind.expand(batch, self.heads, frames, columns),
            within.expand(batch, self.heads, frames, frames),
            t[:, None] + torch.arange(self.kernel, device=age.device),
        )


class _FrontEnd(nn.Module):
    """Subsampling with one row of state per strided stage: output j of a stage needs its inputs 2j-2 .. 2j."""

    def __init__(self, encoder: ConformerEncoder) -> None:
        super().__init__()
        source = encoder.pre_encode
        self.convs = nn.ModuleList(layer for layer in source.conv if isinstance(layer, nn.Conv2d))
        scale = math.sqrt(encoder.config.d_model) if encoder.config.xscaling else 1.0
        self.out = _Product(source.out.weight * scale, source.out.bias * scale)

    def forward(self, mel: Tensor, left: Tensor, s0: Tensor, s1: Tensor, s2: Tensor) -> tuple[Tensor, ...]:
        first, deep1, point1, deep2, point2 = self.convs
        x = torch.cat([s0, mel], 1)
        s0_new = x[:, -1:]
        # Rows before the stream are not zeros of the mel but zeros of each stage's output: a bias would leak otherwise.
        left = left // 2
        x = F.relu(_blank_before(_strided(first, x.unsqueeze(1)), left))
        x = torch.cat([s1, _as(x, s1)], 2)
        s1_new = x[:, :, -1:]
        left = left // 2
        x = F.relu(_blank_before(point1(_strided(deep1, x)), left))
        x = torch.cat([s2, x], 2)
        s2_new = x[:, :, -1:]
        x = F.relu(point2(_strided(deep2, x)))
        x = self.out(x.transpose(1, 2).reshape(-1, self.out.weight.shape[0]))
        return x, s0_new, s1_new, s2_new


class _Layer(nn.Module):
    def __init__(self, source: ConformerLayer, table: Tensor) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            [
                source.norm_feed_forward1,
                source.norm_self_att,
                source.norm_conv,
                source.norm_feed_forward2,
                source.norm_out,
            ]
        )
        self.feed1, self.feed2 = _feed_forward(source.feed_forward1), _feed_forward(source.feed_forward2)
        self.attention = _Attention(source.self_attn, table)
        self.conv = _Convolution(source.conv)

    def forward(self, x: Tensor, chunk: _Chunk, k: Tensor, v: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        feed1, attention, conv, feed2, out = self.norms
        x = x + self.feed1(feed1(x))
        y, k_new, v_new = self.attention(attention(x), chunk, k, v)
        x = x + y
        y, c_new = self.conv(conv(x), chunk, c)
        x = x + y
        return out(x + self.feed2(feed2(x))), k_new, v_new, c_new


class _Attention(nn.Module):
    def __init__(self, source: RelativeAttention, table: Tensor) -> None:
        super().__init__()
        self.heads, self.d_head = source.heads, source.d_head
        scale = 1.0 / math.sqrt(source.d_head)
        parts = (source.linear_q, source.linear_k, source.linear_v)
        weight = torch.cat([parts[0].weight * scale, parts[1].weight, parts[2].weight])
        bias = None
        if parts[0].bias is not None:
            bias = torch.cat([parts[0].bias * scale, parts[1].bias, parts[2].bias])
        self.qkv, self.out = _Product(weight, bias), _Product(source.linear_out.weight, source.linear_out.bias)
        positions = (table @ source.linear_pos.weight.T).view(-1, self.heads, self.d_head)
        self.positions = _constant(positions.permute(1, 2, 0)[None])
        self.u = _constant(source.pos_bias_u[None, :, None] * scale)
        self.v = _constant(source.pos_bias_v[None, :, None] * scale)

    def forward(self, x: Tensor, chunk: _Chunk, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            self.qkv(x).view(chunk.batch, chunk.frames, 3, self.heads, self.d_head).permute(2, 0, 3, 1, 4).unbind(0)
        )
        position, content = (q + self.v) @ self.positions, q + self.u
        # Ring and chunk meet only as scores: keys and values are never concatenated, shifted or gathered.
        old = content @ keys.transpose(2, 3) + (torch.gather(position, 3, chunk.behind) + chunk.mask)
        new = content @ k.transpose(2, 3) + torch.gather(position, 3, chunk.within)
        weights = _as(torch.softmax(torch.cat([old, _as(new, old)], 3), -1), values)
        y = weights[..., : chunk.columns] @ values + weights[..., chunk.columns :] @ v
        return self.out(y.transpose(1, 2).reshape(-1, self.heads * self.d_head)), k, v


class _Convolution(nn.Module):
    def __init__(self, source: Convolution) -> None:
        super().__init__()
        self.kernel, self.width = source.kernel, source.depthwise_conv.weight.shape[0]
        self.gate = _Product(source.pointwise_conv1.weight.squeeze(2), source.pointwise_conv1.bias)
        self.taps = _constant(source.depthwise_conv.weight.squeeze(1).T)
        self.bias = None if source.depthwise_conv.bias is None else _constant(source.depthwise_conv.bias)
        self.norm = source.batch_norm
        self.out = _Product(source.pointwise_conv2.weight.squeeze(2), source.pointwise_conv2.bias)

    def forward(self, x: Tensor, chunk: _Chunk, tail: Tensor) -> tuple[Tensor, Tensor]:
        gated = F.glu(self.gate(x), -1).view(chunk.batch, chunk.frames, self.width)
        x = torch.cat([tail, gated], 1)
        # A gather and a sum: onnxruntime's depthwise Conv takes three times as long.
        y = (x[:, chunk.windows] * self.taps).sum(2).view(-1, self.width)
        if self.bias is not None:
            y = y + self.bias
        return self.out(F.silu(self.norm(_as(y, self.norm.weight)))), x[:, 1 - self.kernel :]


class _Prompt(nn.Module):
    """Two layers over frame and one-hot prompt. The prompt's part of the first product is one row of its weights."""

    def __init__(self, kernel: nn.Sequential, width: int) -> None:
        super().__init__()
        first, _, second = kernel
        assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        self.frame = _Product(first.weight[:, :width], first.bias)
        self.rows = _constant(first.weight[:, width:].T)
        self.out = _Product(second.weight, second.bias)

    def forward(self, x: Tensor, prompt: Tensor, chunk: _Chunk) -> Tensor:
        y = self.frame(x).view(chunk.batch, chunk.frames, -1) + self.rows[prompt][:, None]
        out: Tensor = self.out(F.relu(y).view(-1, self.rows.shape[1]))
        return out


class _Product(nn.Module):
    """x @ W + b with W (in, out): exports as one MatMul with a constant right side, which quantize.py looks for."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = _constant(weight.T), None if bias is None else _constant(bias)

    def forward(self, x: Tensor) -> Tensor:
        y = _as(x, self.weight) @ self.weight
        return y if self.bias is None else y + self.bias


def _feed_forward(source: FeedForward) -> nn.Sequential:
    bias = source.linear2.bias
    return nn.Sequential(
        _Product(source.linear1.weight, source.linear1.bias),
        nn.SiLU(),
        _Product(source.linear2.weight * 0.5, None if bias is None else bias * 0.5),  # the layer adds half of it
    )


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone().contiguous(), requires_grad=False)


def _strided(conv: nn.Module, x: Tensor) -> Tensor:
    """Stride 2 without padding in time: the state's row and the chunk hold all that is needed."""
    assert isinstance(conv, nn.Conv2d)
    return F.conv2d(F.pad(x, (2, 1)), conv.weight, conv.bias, 2, 0, 1, conv.groups)


def _as(x: Tensor, like: Tensor) -> Tensor:
    """`x` in the dtype of `like`. In float32 nothing is done, and nothing is exported."""
    return x if x.dtype == like.dtype else x.to(like.dtype)


def _blank_before(x: Tensor, left: Tensor) -> Tensor:
    """Zero the first `left` rows (B,) of x (B, ch, rows, f)."""
    rows = torch.arange(x.shape[2], device=x.device)
    return x * (rows[None, :] >= left[:, None]).to(x.dtype)[:, None, :, None]

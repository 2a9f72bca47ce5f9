"""The three losses, per token: frame cross-entropy for the flat start, CTC, and RNN-T.

All of them take (B, ...) tensors of any device; blank is the last of the V + 1 classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IMPOSSIBLE = -1e4
"""Log probability of a label past a row's end; far below any real one, yet without the NaN gradients of -inf."""


def rnnt_loss(logits: Tensor, tokens: Tensor, frames: Tensor, token_lengths: Tensor) -> Tensor:
    """Negative log-likelihood of each row under RNN-T (Graves 2012, https://arxiv.org/abs/1211.3711).

    One row of the lattice at a time: within a frame, alpha(u) sums over the label u' at which the frame was entered,

        alpha_t(u) = logsumexp_{u' <= u} [ alpha_{t-1}(u') + blank_{t-1}(u') + emit_t(u') + ... + emit_t(u - 1) ]

    which with E_t = cumsum(emit_t) is E_t(u) + logcumsumexp(alpha_{t-1} + blank_{t-1} - E_t)(u). So the only loop in
    Python is over frames; exact, and autograd gives the gradient.

    Args:
        logits: (B, T, U + 1, V + 1), not normalised.
        tokens: (B, U) int64; frames (B,) int64 in 1..T; token_lengths (B,) int64 in 0..U.

    Returns:
        (B,) float32.
    """
    blank = logits.shape[3] - 1
    logits = logits.float()
    total = torch.logsumexp(logits, 3)
    blanks = logits[..., blank] - total
    index = tokens[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    emits = torch.gather(logits[:, :, :-1], 3, index).squeeze(3) - total[:, :, :-1]
    past = torch.arange(tokens.shape[1], device=tokens.device)[None] >= token_lengths[:, None]
    emitted = F.pad(emits.masked_fill(past[:, None], IMPOSSIBLE).cumsum(2), (1, 0))
    # unbind and not [:, t]: the gradient of a slice is a whole lattice of zeros, once per frame.
    frame_emitted, frame_blanks = emitted.unbind(1), blanks.unbind(1)
    rows = [frame_emitted[0]]
    for emit, blank_before in zip(frame_emitted[1:], frame_blanks[:-1], strict=True):
        rows.append(emit + torch.logcumsumexp(rows[-1] + blank_before - emit, 1))
    row = torch.arange(len(tokens), device=tokens.device)
    return -(torch.stack(rows, 1)[row, frames - 1, token_lengths] + blanks[row, frames - 1, token_lengths])


def ctc_loss(log_probs: Tensor, tokens: Tensor, frames: Tensor, token_lengths: Tensor) -> Tensor:
    """(B, T, V + 1) log probabilities -> (B,) negative log-likelihoods, 0 where a row has too few frames."""
    return F.ctc_loss(
        log_probs.float().transpose(0, 1),
        tokens,
        frames,
        token_lengths,
        blank=log_probs.shape[2] - 1,
        reduction="none",
        zero_infinity=True,
    )


def per_token(losses: Tensor, token_lengths: Tensor, usable: Tensor) -> Tensor:
    """Mean of (B,) losses over the tokens of the rows that are `usable` (B,) bool."""
    return losses[usable].sum() / token_lengths[usable].sum().clamp(min=1)


def flat_loss(log_probs: Tensor, targets: Tensor, frames: Tensor) -> Tensor:
    """Cross-entropy of (B, T, V + 1) with (B, T) frame targets, mean over valid frames."""
    valid = torch.arange(log_probs.shape[1], device=frames.device)[None] < frames[:, None]
    return F.nll_loss(log_probs.float()[valid], targets[valid])


def flat_targets(tokens: Tensor, token_lengths: Tensor, voiced: Tensor, letters: Tensor, shape: torch.Size) -> Tensor:
    """Frame labels of a flat start: each token owns a span of the voiced part in proportion to its letters.

    Synthesized speech has an even rate, which is why that is close enough to start from.

    Args:
        voiced: (B, 2) first and last voiced frame. letters: (V,) letters of each token, at least 0.5.
        shape: of the log probabilities, (B, T, V + 1).

    Returns:
        (B, T) int64, the blank outside the voiced part.
    """
    batch, frames, classes = shape
    out = torch.full((batch, frames), classes - 1, device=tokens.device)
    for row in range(batch):
        ids = tokens[row, : token_lengths[row]]
        ends = letters[ids].cumsum(0)
        start, stop = voiced[row].tolist()
        edges = [start, *(start + ends / ends[-1] * (stop - start)).tolist()]
        for token, left, right in zip(ids.tolist(), edges[:-1], edges[1:], strict=True):
            out[row, round(left) : max(round(right), round(left) + 1)] = token
    return out

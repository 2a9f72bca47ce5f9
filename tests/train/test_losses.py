"""The losses against what they mean: every alignment summed one by one, numerical gradients, spans in proportion."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from train.losses import flat_targets, rnnt_loss


def enumerate_rnnt(logits: Tensor, tokens: list[int]) -> Tensor:
    """logits (T, U + 1, V + 1) -> -log of the sum over every order of T - 1 blanks and all labels, a blank behind."""
    log_probs = torch.log_softmax(logits, 2)
    frames, labels, blank = logits.shape[0], len(tokens), logits.shape[2] - 1
    paths = []
    for places in itertools.combinations(range(frames - 1 + labels), labels):
        t = u = 0
        score = torch.zeros((), dtype=logits.dtype)
        for place in range(frames - 1 + labels):
            if place in places:
                score, u = score + log_probs[t, u, tokens[u]], u + 1
            else:
                score, t = score + log_probs[t, u, blank], t + 1
        paths.append(score + log_probs[t, u, blank])
    return -torch.logsumexp(torch.stack(paths), 0)


def ragged() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three rows of 4, 3 and 1 frames with 3, 2 and 0 labels out of 5."""
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 4, 6, requires_grad=True)
    return logits, torch.tensor([[0, 3, 3], [4, 1, 0], [0, 0, 0]]), torch.tensor([4, 3, 1]), torch.tensor([3, 2, 0])


def test_rnnt_loss_sums_every_alignment() -> None:
    logits, tokens, frames, lengths = ragged()
    loss = rnnt_loss(logits, tokens, frames, lengths)
    for row in range(3):
        t, u = int(frames[row]), int(lengths[row])
        expected = enumerate_rnnt(logits[row, :t, : u + 1], tokens[row, :u].tolist())
        torch.testing.assert_close(loss[row], expected, rtol=1e-5, atol=1e-5)


def test_rnnt_gradient_is_that_of_the_enumeration() -> None:
    logits, tokens, frames, lengths = ragged()
    (gradient,) = torch.autograd.grad(rnnt_loss(logits, tokens, frames, lengths).sum(), logits)
    rows = [
        enumerate_rnnt(logits[row, :t, : u + 1], tokens[row, :u].tolist())
        for row, (t, u) in enumerate(zip(frames.tolist(), lengths.tolist(), strict=True))
    ]
    (expected,) = torch.autograd.grad(torch.stack(rows).sum(), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
    assert not gradient[1, 3].any() and not gradient[1, :, 3].any(), "padding has no gradient"


def test_flat_targets_share_the_voiced_part_by_letters() -> None:
    tokens, letters = torch.tensor([[0, 1, 0]]), torch.tensor([1.0, 3.0])
    voiced = torch.tensor([[2.0, 10.0]])
    targets = flat_targets(tokens, torch.tensor([2]), voiced, letters, torch.Size([1, 12, 3]))
    assert targets.tolist() == [[2, 2, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2]]

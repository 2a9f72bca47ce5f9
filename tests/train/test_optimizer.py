"""Muon: a matrix moves the same way in all its directions, whatever kind of layer it belongs to."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from train.optimizer import MATCH, Muon, orthogonal

RATE = 0.01


class Layers(nn.Module):
    """A linear layer, a pointwise convolution of the same shape, a depthwise one, and biases."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 48)
        self.pointwise = nn.Conv1d(32, 48, 1)
        self.depthwise = nn.Conv1d(48, 48, 9, groups=48)


@pytest.mark.parametrize("shape", [(3, 48, 32), (2, 32, 48), (1, 32, 32)])
def test_all_singular_values_become_about_one_and_their_vectors_stay(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrices = u @ torch.diag(torch.logspace(-1, 1, u.shape[2])) @ v
    its_u = u.transpose(1, 2) @ orthogonal(matrices) @ v.transpose(1, 2)
    values = its_u.diagonal(dim1=1, dim2=2)
    assert values.max() < 1.3 and values.min() > 0.3 and values.median() > 0.7
    assert (its_u - torch.diag_embed(values)).abs().max() < 0.05


def test_a_pointwise_convolution_is_a_matrix_and_all_else_is_adamws() -> None:
    torch.manual_seed(1)
    model = Layers()
    optimizer = Muon(model, matrices=model, weight_decay=0.0)
    assert {shape: len(group) for shape, group in optimizer.groups.items()} == {(48, 32): 2}
    gradient = torch.randn(48, 32) * torch.logspace(-2, 2, 32)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    model.linear.weight.grad, model.pointwise.weight.grad = gradient, gradient[:, :, None].clone()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.rate = RATE
    optimizer.step()
    moved = {name: before[name] - p.detach() for name, p in model.named_parameters()}
    torch.testing.assert_close(moved["linear.weight"], moved["pointwise.weight"][:, :, 0])
    largest = torch.linalg.matrix_norm(moved["linear.weight"], 2).item()
    assert largest == pytest.approx(RATE * MATCH * 48**0.5, rel=0.3)
    for name in "depthwise.weight", "linear.bias":  # AdamW's first step: its rate, whatever the gradient's size
        torch.testing.assert_close(moved[name].abs(), torch.full_like(moved[name], RATE), rtol=1e-2, atol=0)


def test_what_is_saved_goes_on_alike() -> None:
    def trained(optimizer: Muon, model: Layers, steps: int) -> None:
        torch.manual_seed(2)
        for _ in range(steps):
            model.zero_grad()
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            optimizer.rate = RATE
            optimizer.step()

    torch.manual_seed(1)
    model, other = Layers(), Layers()
    first = Muon(model, matrices=model, weight_decay=0.1)
    trained(first, model, 3)
    second = Muon(other, matrices=other, weight_decay=0.1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    other.load_state_dict(model.state_dict())
    for optimizer, its in (first, model), (second, other):
        trained(optimizer, its, 1)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

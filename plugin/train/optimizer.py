"""Muon for the encoder's matrices, AdamW for everything else.

    optimizer = Muon(model, matrices=model.encoder.layers, weight_decay=1e-2)
    optimizer.rate = 1e-3
    optimizer.step()

Muon (https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the nearest matrix whose singular
values are all about 1, so that every direction of it learns at the same pace. torch.optim.Muon takes no pointwise
convolutions, computes in bf16, which a CPU without it only imitates, and goes through the matrices one by one; here
those of one shape are one batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the quintic iteration, from the post: the steepest at zero that stays within 0.7..1.2."""
ITERATIONS = 5
MOMENTUM = 0.95
MATCH = 0.2
"""Root mean square of AdamW's updates, in units of its rate (https://arxiv.org/abs/2502.16982): one rate fits both."""


class Muon:
    """State: AdamW's, and one momentum per matrix. `rate` is the learning rate of the next step."""

    def __init__(self, model: nn.Module, *, matrices: nn.Module, weight_decay: float) -> None:
        """Matrices of `matrices` (linear layers and pointwise convolutions, (out, in) or (out, in, 1)) are Muon's."""
        own = {id(p) for p in matrices.parameters() if _is_matrix(p)}
        self.weight_decay = weight_decay
        self.rate = 0.0
        self.adamw = torch.optim.AdamW(
            [p for p in model.parameters() if id(p) not in own], betas=(0.9, 0.98), weight_decay=weight_decay
        )
        self.groups: dict[tuple[int, int], list[nn.Parameter]] = {}
        for p in matrices.parameters():
            if id(p) in own:
                self.groups.setdefault((p.shape[0], p.shape[1]), []).append(p)
        self.momenta = {
            shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self) -> None:
        for group in self.adamw.param_groups:
            group["lr"] = self.rate
        self.adamw.step()
        for shape, parameters in self.groups.items():
            gradients = torch.stack([_gradient(p).reshape(shape) for p in parameters])
            momentum = self.momenta[shape]
            momentum.lerp_(gradients, 1 - MOMENTUM)
            updates = orthogonal(gradients.lerp(momentum, MOMENTUM))
            pace = self.rate * MATCH * math.sqrt(max(shape))
            for p, update in zip(parameters, updates, strict=True):
                p.mul_(1 - self.rate * self.weight_decay).sub_(update.view_as(p), alpha=pace)

    def state_dict(self) -> dict[str, Any]:
        return {"adamw": self.adamw.state_dict(), "momenta": list(self.momenta.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adamw.load_state_dict(state["adamw"])
        for momentum, saved in zip(self.momenta.values(), state["momenta"], strict=True):
            momentum.copy_(saved)


def orthogonal(matrices: Tensor) -> Tensor:
    """(n, out, in) -> the same shape: singular vectors kept, singular values all near 1, by Newton-Schulz iteration."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def _is_matrix(p: nn.Parameter) -> bool:
    """Of a linear layer or a pointwise convolution; not a depthwise convolution, nor the attention's biases by head."""
    return p.ndim > 1 and min(p.shape[:2]) >= 16 and math.prod(p.shape[2:]) == 1


def _gradient(p: nn.Parameter) -> Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad

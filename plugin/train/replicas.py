"""Several processes that train one model, each on batches of its own: on a CPU two processes of a thread each hear half
as much again as one process of two threads.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m train --threads 1 ...

Without that launcher there is one replica, and nothing is shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")

PATIENCE = timedelta(days=2)
"""How long the others wait while the first evaluates, or is paused for a benchmark."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """`rank` of `count`; the first one logs, evaluates and saves."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls) -> Replicas:
        """The replicas that the launcher started, met; or this one alone."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        distributed.init_process_group("gloo", timeout=PATIENCE)
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        return self.rank == 0

    def leave(self) -> None:
        if self.count > 1:
            distributed.destroy_process_group()

    def in_turn(self, load: Callable[[], T]) -> T:
        """What `load` gives: called by the first replica, and only then, its files being there, by the others."""
        if self.count == 1:
            return load()
        if not self.first:
            distributed.barrier()
            return load()
        found = load()
        distributed.barrier()
        return found

    def mean(self, parameters: Sequence[nn.Parameter], values: Sequence[float]) -> list[float]:
        """Replace gradients by their mean over all replicas, and return the sums of `values`. All replicas call it the
        same number of times; it waits for them."""
        if self.count == 1:
            return list(values)
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.reshape(-1) for g in gradients), torch.tensor(values, device=gradients[0].device)])
        distributed.all_reduce(flat)
        sizes = [g.numel() for g in gradients]
        *shared, sums = torch.split(flat, [*sizes, len(values)])
        for gradient, its in zip(gradients, shared, strict=True):
            gradient.copy_(its.view_as(gradient)).div_(self.count)
        return [float(value) for value in sums]

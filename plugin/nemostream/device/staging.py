"""The way to the device and back: arrays of the host, and tensors of the device at addresses that never change.

staging = Staging(capacity, span, numbers=5, results=13, device)
staging.samples[:n] = windows; staging.numbers(n)[:] = rows, prompts, ...
samples, numbers = staging.upload(n)           # on the device, (n, span) and (5, n)
found = staging.download(result, meanwhile)    # waits for the device, the one time in a step; first does something else
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nemostream.encoders import Floats
from nemostream.group import Meanwhile

Numbers = npt.NDArray[np.int64]


class Staging:
    """Memory of the host is pinned where there is a GPU: copies then run beside the processor."""

    def __init__(self, capacity: int, span: int, numbers: int, results: int, device: torch.device) -> None:
        """`numbers` and `results`: of each row, on the way there and back."""
        self._device, self._count = device, numbers
        pinned: dict[str, Any] = {"pin_memory": device.type == "cuda"}
        self._host_samples = torch.zeros((capacity, span), **pinned)
        self._host_numbers = torch.zeros(numbers * capacity, dtype=torch.int64, **pinned)
        self._host_results = torch.zeros(results * capacity, dtype=torch.int32, **pinned)
        self._samples = torch.zeros((capacity, span), device=device)
        self._numbers = torch.zeros(numbers * capacity, dtype=torch.int64, device=device)
        self.samples: Floats = self._host_samples.numpy()

    def numbers(self, rows: int) -> Numbers:
        """(numbers, rows), a view to be filled."""
        view: Numbers = self._host_numbers.numpy()[: self._count * rows].reshape(self._count, rows)
        return view

    def tensors(self, rows: int) -> tuple[Tensor, Tensor]:
        """The device's samples (rows, span) and numbers (numbers, rows)."""
        return self._samples[:rows], self._numbers[: self._count * rows].view(self._count, rows)

    def upload(self, rows: int) -> None:
        """Begin to copy what was filled in for so many rows."""
        samples, numbers = self.tensors(rows)
        samples.copy_(self._host_samples[:rows], non_blocking=True)
        numbers.copy_(self._host_numbers[: self._count * rows].view(self._count, rows), non_blocking=True)

    def download(self, result: Tensor, meanwhile: Meanwhile = None) -> npt.NDArray[np.int32]:
        """`result` (n, rows) int32 once it is computed; valid until the next one."""
        host = self._host_results[: result.numel()].view(result.shape)
        host.copy_(result, non_blocking=True)
        if meanwhile is not None:
            meanwhile()
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        found: npt.NDArray[np.int32] = host.numpy()
        return found

"""Functions on tensors that stay where they are, run as captured CUDA graphs on a GPU and as they are anywhere else.

graphs = Graphs(torch.device("cuda"))
graphs.prepare("step 64", step)        # captured: no memory is asked for afterwards
out = graphs.run("step 64", step)      # replayed; `out` is valid until the next run of any of them
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nemostream.alone import ALONE

WARM_UPS = 2
"""Runs before a capture, as torch asks for: libraries choose their kernels and get their workspaces."""

Function = Callable[[], Tensor]


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """A context whose work on the device, of this thread, does not hold up that of others; at its end it is done."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


@contextmanager
def uncollected() -> Iterator[None]:
    """A context in which no thread collects garbage: a graph or an engine that ends would break a capture."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Graphs:
    """The captured functions of one device. They share one pool of memory, as no two of them run at once."""

    def __init__(self, device: torch.device) -> None:
        self._captures = device.type == "cuda"
        self._graphs: dict[Hashable, tuple[Any, Tensor]] = {}
        self._pool: Any = None
        # Always the same: what one stream has freed no other may take.
        self._stream: Any = torch.cuda.Stream(device) if self._captures else None  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._graphs)

    @torch.inference_mode()
    def prepare(self, key: Hashable, function: Function) -> None:
        """Capture `function`, unless it was. It runs a few times, so what its inputs say must change nothing.

        Raises:
            torch.OutOfMemoryError: there is no memory for what it computes.
        """
        if not self._captures or key in self._graphs:
            return
        with ALONE:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    function()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with uncollected(), torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                # Steps of other groups are replayed by another thread meanwhile.
                out = function()
            self._pool = self._pool or graph.pool()
            self._graphs[key] = graph, out

    @torch.inference_mode()
    def run(self, key: Hashable, function: Function) -> Tensor:
        """What `function` returns; one that was prepared is replayed."""
        if key not in self._graphs:
            return function()
        graph, out = self._graphs[key]
        graph.replay()
        return out

"""How long things take on a device: by its own events on a GPU, by the clock on the CPU.

seconds = device_seconds(lambda: product(a, b), rounds=20)        # the median
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def wait() -> None:
    """For all that the device was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_seconds(action: Callable[[], object], rounds: int, warm_ups: int = 3) -> float:
    """The median time of `action` on the device."""
    for _ in range(warm_ups):
        action()
    wait()
    if not torch.cuda.is_available():
        return host_seconds(action, rounds, 0)
    events = [(_event(), _event()) for _ in range(rounds)]
    for begin, end in events:
        begin.record()
        action()
        end.record()
    wait()
    return float(statistics.median(begin.elapsed_time(end) for begin, end in events)) / 1000


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def host_seconds(action: Callable[[], object], rounds: int, warm_ups: int = 3) -> float:
    """The median time until `action` has returned and the device is done."""
    times = []
    for i in range(warm_ups + rounds):
        began = time.perf_counter()
        action()
        wait()
        if i >= warm_ups:
            times.append(time.perf_counter() - began)
    return statistics.median(times)

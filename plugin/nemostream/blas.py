"""numpy's matrix products on one thread.

Decoding's products are small: split over cores they gain nothing, and where cores are busy BLAS's threads spin while
they wait for each other (measured on two cores beside another process: 24.7 s against 4.2 s for the same decoding).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside: list[Any] = []
"""The limit that is in force, once for every engine's thread that asked for it: the setting is the process's."""


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """A context in which BLAS runs on the calling thread alone (20 microseconds to enter and leave)."""
    with _lock:
        if not _inside:
            _take_control()
        limit = _inside[0] if _inside else _controller().limit(limits=1, user_api="blas")
        _inside.append(limit)
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if not _inside:
                _take_control()
                limit.restore_original_limits()
                _take_control()


def _take_control() -> None:
    """threadpoolctl lets only the first thread that ever set the number set it again, unless it lets go."""
    for library in _controller().lib_controllers:
        let_go = getattr(library, "clear_controlling_thread", None)
        if let_go is not None:
            let_go(force=True)

"""One thing at a time on a GPU, of those that a capture does not stand beside it: another capture, TensorRT's builds
and loads, a model's weights on their way there, and the end of objects that own memory there.

with ALONE: ...

Steps need not be: they only replay, copy, and wait for their own stream.
"""

from __future__ import annotations

import gc
import threading
import traceback

ALONE = threading.RLock()


def collect() -> None:
    """Let go of what nobody uses: groups, and streams that have ended, are circles."""
    with ALONE:
        gc.collect()


def forget(error: BaseException | None) -> None:
    """Empty the frames of an error that is kept, and of those it came of: they hold what could not be finished."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__

"""What a process sets for itself that does nothing but serve streams. Measured with `bench.engine --encoder null`.

process.prepare()
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""mallopt's names for them (malloc.h)."""
KEPT = 512 << 20
"""Bytes of freed memory that the process may keep. glibc gives arrays back to the system as soon as they are freed, and
every step faults them in again: with 2,000 streams 3 pages a chunk, 8.6 of the 45 microseconds that a chunk cost."""
LARGEST = 32 << 20
"""Bytes of an array that comes from memory that is kept: as many as glibc allows."""
SWITCH_SECONDS = 2e-4
"""How long a thread waits before it asks for the interpreter, 5 ms by default. A step gives the interpreter up in each
of its larger products and gets it back only after that time if the thread that reads audio is busy: with 4,000 streams
the difference between answers after 0.1 s and after 1.4 s."""


def prepare() -> None:
    """Set it all, for good."""
    sys.setswitchinterval(SWITCH_SECONDS)
    keep_heap()


def keep_heap() -> None:
    """Keep freed memory. Does nothing where the C library is not glibc."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, LARGEST)

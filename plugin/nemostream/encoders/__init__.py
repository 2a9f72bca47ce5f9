"""What the engine asks of an encoder backend: rows of state on one side, steps over them on the other."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class EncoderRows(Protocol):
    """The encoder's state for every stream of one chunk size; a stream owns one row.

    A step computes and keeps nothing: only `commit` writes. Leaving the commit out is a peek or a retry, both free.
    """

    chunk_frames: int
    """T: encoder frames (80 ms each at 8x subsampling) that one step yields per row."""
    capacity: int
    """Rows there are."""

    def reset(self, row: int) -> None:
        """Make `row` that of a stream that has heard nothing."""

    def move(self, source: int, target: int) -> None:
        """Copy the state of row `source` into row `target`."""

    def step(self, rows: int | Indices, mel: Floats) -> Floats:
        """Encode one chunk for each row.

        Args:
            rows: the first n rows (an int n), or the indices of any rows (gathered: slower).
            mel: (B, 8T, n_mels) log-mel frames [8Tk-7, 8Tk+8T-8] of chunk k; frames before the stream are zero.

        Returns:
            (B, T, D) float32, valid until the next step.
        """

    def commit(self, positions: Indices) -> None:
        """Write the columns of the last step for these positions of its batch (not row numbers)."""

    def save(self, row: int) -> Any:
        """A small copy of what a commit overwrites and cannot be told from the position: for `restore`."""

    def restore(self, row: int, saved: Any) -> None:
        """Undo the commits since `save`; at most `spare_frames` frames may have been committed."""


class EncoderBackend(Protocol):
    """A loaded model."""

    def rows(self, chunk_frames: int, capacity: int, spare_frames: int) -> EncoderRows:
        """Room for `capacity` streams of that chunk size, with `spare_frames` columns for steps that are undone."""

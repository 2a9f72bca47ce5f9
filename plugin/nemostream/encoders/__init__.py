"""What the engine asks of an encoder backend: rows of state on one side, steps over them on the other.

A row can leave as plain arrays (RowState) and go on in another row, group or process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nemostream.errors import SnapshotError

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
Places = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]
"""Arrays by name: one row, or with a first axis of rows."""


@dataclass(frozen=True, slots=True, eq=False)
class RowState:
    """All that a stream's later steps read of its row. It fits every group of the same model, precision and chunk size.

    Of the embedded model that is 0.74 MB at 80 and 160 ms, 0.83 MB at 1120 ms: rings, but for 52 kB.

    Attributes:
        decoder: its name.
        chunk_frames: T. Two chunk sizes may have rows of the same shape.
        encoder_row: key and value rings, convolution tails, rows of the front end, frames committed.
        decoder_row: the predictor's state, or CTC's last label.
    """

    decoder: str
    chunk_frames: int
    encoder_row: Arrays
    decoder_row: Arrays


def export_row(arrays: Arrays, row: int) -> Arrays:
    """A copy of `row` of every array."""
    return {name: np.array(array[row]) for name, array in arrays.items()}


def check_row(arrays: Arrays, saved: Arrays) -> None:
    """Raises SnapshotError unless `saved` can be a row of `arrays`: the same names, shapes and dtypes, all finite."""
    if saved.keys() != arrays.keys():
        names = ", ".join(sorted(saved.keys() ^ arrays.keys()))
        raise SnapshotError(f"the saved state does not belong to this model ({names}); open the stream without it")
    for name, array in arrays.items():
        found, wanted = (saved[name].dtype, saved[name].shape), (array.dtype, array.shape[1:])
        if found != wanted:
            raise SnapshotError(
                f"the saved state does not belong to this model: {name} is {found[0]} {found[1]}, not {wanted[0]} "
                f"{wanted[1]}; open the stream without it"
            )
        if not np.isfinite(saved[name]).all():
            raise SnapshotError(f"the saved state is damaged: {name} is not finite; open the stream without it")


class EncoderRows(Protocol):
    """The encoder's state for every stream of one chunk size; a stream owns one row.

    A step computes and keeps nothing: only `commit` writes. Leaving the commit out is a peek or a retry, both free.
    """

    chunk_frames: int
    """T: encoder frames (80 ms each at 8x subsampling) that one step yields per row."""
    capacity: int
    """Rows there are."""
    dense: bool
    """The first n rows cost so much less than any n rows that a few of them may run in vain."""

    def reset(self, row: int) -> None:
        """Make `row` that of a stream that has heard nothing."""

    def move(self, source: int, target: int) -> None:
        """Copy the state of row `source` into row `target`."""

    def export(self, row: int) -> Arrays:
        """A copy of all that later steps of `row` read."""

    def check(self, saved: Arrays) -> None:
        """Raises SnapshotError if `load` would not take it."""

    def load(self, row: int, saved: Arrays) -> None:
        """Make `row` the one that was exported."""

    def step(self, rows: int | Indices, mel: Floats, prompts: Places | None = None) -> Floats:
        """Encode one chunk for each row.

        Args:
            rows: the first n rows (an int n), or the indices of any rows (gathered: slower).
            mel: (B, 8T, n_mels) log-mel frames [8Tk-7, 8Tk+8T-8] of chunk k; frames before the stream are zero.
            prompts: (B,) places of the rows' languages in the model's prompt; None: 0 for each. A model that takes no
                prompt does not look at them.

        Returns:
            (B, T, D) float32, valid until the next step.
        """

    def commit(self, positions: Indices, undo: Sequence[tuple[int, Any]] = ()) -> None:
        """Write the columns of the last step for these positions of its batch (not row numbers), and put back the rows
        in `undo`, others than those, to what `save` gave. All of it, or nothing if it raises."""

    def save(self, row: int) -> Any:
        """A small copy of what a commit overwrites and cannot be told from the position: for `restore`."""

    def restore(self, row: int, saved: Any) -> None:
        """Undo the commits since `save`; at most `spare_frames` frames may have been committed."""


class EncoderBackend(Protocol):
    """A loaded model."""

    name: str
    """What computes, and its version."""

    def rows(self, chunk_frames: int, capacity: int, spare_frames: int) -> EncoderRows:
        """Room for `capacity` streams of that chunk size, with `spare_frames` columns for steps that are undone."""

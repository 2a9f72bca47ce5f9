"""What the encoder remembers of every stream, as arrays with a row per stream, and the clock that says what is valid.

`position` (frames committed) is a row's only clock. Frame f lives in ring column f % columns; how old a column is, and
whether it may be seen, follows from the position alone. So undoing commits is resetting the position and restoring the
little that is overwritten in place: the convolution tails and the front end's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nemostream.encoders import Arrays, Floats, Indices, check_row, export_row
from nemostream.errors import SnapshotError

if TYPE_CHECKING:
    from nemostream.models.info import EncoderInfo, MelInfo

PREROLL = 7
"""Mel frames of a stream's first chunk that lie before the stream (step.py)."""


@dataclass(frozen=True, slots=True, eq=False)
class SavedRow:
    """A row's position and a copy of everything that commits overwrite but the rings."""

    position: int
    small: tuple[Floats, ...]


class RowArrays:
    """Rings and small states of `capacity` rows for chunks of `chunk_frames`.

    Attributes:
        position: (capacity,) int64, frames committed since the row's reset.
        rings: k and v per layer, (capacity, H, columns, d_head) float32 each: k0, v0, k1, ...
        small: s0, s1, s2 of the front end and the convolution tail of every layer, each (capacity, ...).
        arrays: all of these by name: position, k0, v0, ..., s0, s1, s2, c0, ...
    """

    def __init__(self, encoder: EncoderInfo, mel: MelInfo, chunk_frames: int, capacity: int, spare_frames: int) -> None:
        self.chunk_frames, self.spare_frames = chunk_frames, spare_frames
        self.columns = encoder.left_context + spare_frames
        # A chunk sees whole chunks only, as NeMo's chunked-limited mask does.
        self.window = encoder.left_context // chunk_frames * chunk_frames
        first = mel.n_mels // 2 + 1
        channels = encoder.subsampling_channels
        # np.zeros maps pages on first touch: a row that was never used costs no memory.
        ring = (capacity, encoder.n_heads, self.columns, encoder.d_head)
        self.rings: list[Floats] = [np.zeros(ring, np.float32) for _ in range(2 * encoder.n_layers)]
        tail = (encoder.conv_kernel - 1, encoder.d_model)
        shapes = [(1, mel.n_mels), (channels, 1, first), (channels, 1, first // 2 + 1)] + [tail] * encoder.n_layers
        self.small: list[Floats] = [np.zeros((capacity, *shape), np.float32) for shape in shapes]
        self.position = np.zeros(capacity, np.int64)
        layers = range(encoder.n_layers)
        self.ring_names = [f"{kind}{i}" for i in layers for kind in "kv"]
        self.small_names = ["s0", "s1", "s2", *(f"c{i}" for i in layers)]
        self.arrays: Arrays = {
            "position": self.position,
            **dict(zip(self.ring_names, self.rings, strict=True)),
            **dict(zip(self.small_names, self.small, strict=True)),
        }
        self._order = np.arange(self.columns)
        self._steps = np.arange(chunk_frames)

    def reset(self, row: int) -> None:
        """Rings keep their old values: at position 0 every column is masked."""
        self.position[row] = 0
        for array in self.small:
            array[row] = 0

    def move(self, source: int, target: int) -> None:
        for array in self.arrays.values():
            array[target] = array[source]

    def save(self, row: int) -> SavedRow:
        return SavedRow(int(self.position[row]), tuple(array[row].copy() for array in self.small))

    def restore(self, row: int, saved: SavedRow) -> None:
        """Raises ValueError if commits since `save` have overwritten columns that are needed again."""
        self.check_restore(row, saved)
        self.position[row] = saved.position
        for array, copy in zip(self.small, saved.small, strict=True):
            array[row] = copy

    def check_restore(self, row: int, saved: SavedRow) -> None:
        """Raises what `restore` would."""
        ahead = int(self.position[row]) - saved.position
        if not 0 <= ahead <= self.spare_frames:
            raise ValueError(f"row {row} is {ahead} frames past the saved state, it can go back {self.spare_frames}")

    def export(self, row: int) -> Arrays:
        """A copy of `row`. Ring columns that no step will see are zero: they may be of the row's owner before."""
        saved = export_row(self.arrays, row)
        unseen = self.age(slice(row, row + 1))[0] == 0
        for name in self.ring_names:
            saved[name][:, unseen] = 0
        return saved

    def check(self, saved: Arrays) -> None:
        """Raises SnapshotError if `saved` is not of rows like these."""
        check_row(self.arrays, saved)
        position = int(saved["position"])
        if position < 0 or position % self.chunk_frames:
            raise SnapshotError(
                f"the saved state is damaged: {position} frames are no chunks of {self.chunk_frames}; "
                "open the stream without it"
            )

    def load(self, row: int, saved: Arrays) -> None:
        for name, array in self.arrays.items():
            array[row] = saved[name]

    def age(self, rows: slice | Indices) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """(B, columns) int64: frames from each column to the row's next frame; 0 where nothing may be seen: empty,
        older than the window, or left over from commits that were undone (those look older than the window)."""
        position = self.position[rows, None]
        age = (position - 1 - self._order) % self.columns + 1
        age[age > np.minimum(position, self.window)] = 0
        return age

    def left(self, rows: slice | Indices) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """(B,) int64: mel frames of the next chunk that lie before the stream."""
        return np.where(self.position[rows] == 0, PREROLL, 0)

    def commit(self, rows: Indices, rings: list[Floats], small: list[Floats], positions: Indices) -> None:
        """Write a step's new columns and small states.

        Args:
            rows: (P,) rows to write.
            rings: the step's k_new and v_new in the order of `self.rings`, (B, H, T, d_head) each.
            small: its new small states in the order of `self.small`, (B, ...) each.
            positions: (P,) where in the batch each of `rows` stands.
        """
        columns = (self.position[rows, None] + self._steps) % self.columns
        for ring, new in zip(self.rings, rings, strict=True):
            ring[rows[:, None], :, columns] = new[positions].swapaxes(1, 2)
        for array, fresh in zip(self.small, small, strict=True):
            array[rows] = fresh[positions]
        self.position[rows] += self.chunk_frames

"""An encoder and a front end that compute nothing, behind the same protocols: what an engine costs beside its model.

`nemostream serve --encoder null` and the benchmarks use them; every frame is zero, so the text means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nemostream.encoders import Arrays, Floats, Indices, Places, check_row, export_row
from nemostream.mel import MelFilters
from nemostream.models.bundle import Bundle


class NullFilters(MelFilters):
    """A front end that hears nothing."""

    def chunks(self, windows: Floats, rows: Indices, samples: int) -> Floats:
        frames = (samples - self.span(1)) // self.hop + 1
        return np.zeros((len(rows), frames, self.n_mels), np.float32)


class NullRows:
    """Rows that count their frames."""

    dense = True

    def __init__(self, d_model: int, chunk_frames: int, capacity: int) -> None:
        self.chunk_frames = chunk_frames
        self.capacity = capacity
        self._position = np.zeros(capacity, np.int64)
        self._zeros: Floats = np.zeros((capacity, chunk_frames, d_model), np.float32)
        self._batch: Indices = np.zeros(0, np.intp)

    def reset(self, row: int) -> None:
        self._position[row] = 0

    def move(self, source: int, target: int) -> None:
        self._position[target] = self._position[source]

    def export(self, row: int) -> Arrays:
        return export_row({"position": self._position}, row)

    def check(self, saved: Arrays) -> None:
        check_row({"position": self._position}, saved)

    def load(self, row: int, saved: Arrays) -> None:
        self._position[row] = saved["position"]

    def step(self, rows: int | Indices, mel: Floats, prompts: Places | None = None) -> Floats:
        self._batch = np.arange(rows) if isinstance(rows, (int, np.integer)) else rows
        return self._zeros[: len(self._batch)]

    def commit(self, positions: Indices, undo: Sequence[tuple[int, int]] = ()) -> None:
        self._position[self._batch[positions]] += self.chunk_frames
        for row, saved in undo:
            self.restore(row, saved)

    def save(self, row: int) -> int:
        return int(self._position[row])

    def restore(self, row: int, saved: int) -> None:
        self._position[row] = saved


class NullBackend:
    """No model."""

    name = "null"

    def __init__(self, bundle: Bundle) -> None:
        self._d_model = bundle.info.encoder.d_model

    def rows(self, chunk_frames: int, capacity: int, spare_frames: int) -> NullRows:
        return NullRows(self._d_model, chunk_frames, capacity)

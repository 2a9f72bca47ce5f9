"""What the encoder remembers of every stream, on the device that computes: the tensors of RowArrays (state.py) at
addresses that never change, so that a captured graph may read and write them.

    state = RowTensors(info.encoder, info.mel, chunk_frames=2, capacity=64, spare_frames=6, dtype, device)
    keep = state.commit(rows, new, keep)          # no branch and no copy to the host: may be captured

A row crosses over to arrays in float32 under the names of RowArrays: what one backend exported, the other loads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nemostream.encoders import Arrays, check_row
from nemostream.encoders.state import PREROLL
from nemostream.errors import EngineFull, SnapshotError

if TYPE_CHECKING:
    from nemostream.models.config import EncoderConfig, MelConfig
    from nemostream.models.info import EncoderInfo, MelInfo

RETRY_AFTER = 5.0
ALIGNMENT = 256
"""Of addresses, in bytes, as TensorRT wants them."""
_NO_MEMORY = "can't allocate memory"


@dataclass(frozen=True, slots=True, eq=False)
class SavedTensors:
    """A row's position and a copy of everything that commits overwrite but the rings."""

    position: int
    small: tuple[Tensor, ...]


class RowTensors:
    """Rings and small states of `capacity` rows, and of one more that is nobody's: what fills up a batch.

    Attributes:
        position: (rows,) int64, frames committed since the row's reset.
        rings: (2 * layers, rows, H, columns, d_head): keys and values of each layer in turn; rows > capacity, so many
            that each layer's begin at an address that ALIGNMENT divides.
        tails: (layers, rows, K - 1, D) of the convolutions.
        front: s0 (float32), s1, s2 of the front end, each (rows, ...).
        nobody: the row that is nobody's.
    """

    def __init__(
        self,
        encoder: EncoderInfo | EncoderConfig,
        mel: MelInfo | MelConfig,
        chunk_frames: int,
        capacity: int,
        spare_frames: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Raises EngineFull if the device has no memory for it."""
        self.chunk_frames, self.spare_frames, self.nobody = chunk_frames, spare_frames, capacity
        self.columns = encoder.left_context + spare_frames
        self.window = encoder.left_context // chunk_frames * chunk_frames
        layers, channels, d_head = encoder.n_layers, encoder.subsampling_channels, encoder.d_model // encoder.n_heads
        first = mel.n_mels // 2 + 1
        of_row = self.columns * encoder.d_model, (encoder.conv_kernel - 1) * encoder.d_model
        rows = _aligned(capacity + 1, [numbers * dtype.itemsize for numbers in of_row])
        with enough_memory(f"{capacity} rows"):
            # The largest first: what does not fit fails before it takes anything.
            ring = (2 * layers, rows, encoder.n_heads, self.columns, d_head)
            self.rings = torch.zeros(ring, dtype=dtype, device=device)
            self.position = torch.zeros(rows, dtype=torch.int64, device=device)
            tail = (layers, rows, encoder.conv_kernel - 1, encoder.d_model)
            self.tails = torch.zeros(tail, dtype=dtype, device=device)
            self.front = [
                torch.zeros((rows, 1, mel.n_mels), device=device),
                torch.zeros((rows, channels, 1, first), dtype=dtype, device=device),
                torch.zeros((rows, channels, 1, first // 2 + 1), dtype=dtype, device=device),
            ]
        self._order = torch.arange(self.columns, device=device)
        self._steps = torch.arange(chunk_frames, device=device)
        self._like = {
            name: np.broadcast_to(np.zeros((), array.dtype), (1, *array.shape)) for name, array in self._row(0)
        }

    @property
    def row_bytes(self) -> int:
        """Of the device's memory, for each row."""
        return sum(t.nbytes for t in (self.position, self.rings, self.tails, *self.front)) // len(self.position)

    @property
    def small(self) -> list[Tensor]:
        """Per-row views of what is overwritten in place, the row in front."""
        return [*self.front, self.tails.transpose(0, 1)]

    def reset(self, row: int) -> None:
        """Rings keep their old values: at position 0 every column is masked."""
        self.position[row] = 0
        for tensor in self.small:
            tensor[row] = 0

    def move(self, source: int, target: int) -> None:
        for tensor in (self.position, self.rings.transpose(0, 1), *self.small):
            tensor[target] = tensor[source]

    def save(self, row: int) -> SavedTensors:
        return SavedTensors(int(self.position[row]), tuple(tensor[row].clone() for tensor in self.small))

    def check_restore(self, row: int, saved: SavedTensors) -> None:
        """Raises ValueError if commits since `save` have overwritten columns that are needed again."""
        ahead = int(self.position[row]) - saved.position
        if not 0 <= ahead <= self.spare_frames:
            raise ValueError(f"row {row} is {ahead} frames past the saved state, it can go back {self.spare_frames}")

    def restore(self, row: int, saved: SavedTensors) -> None:
        """Raises what `check_restore` does."""
        self.check_restore(row, saved)
        self.position[row] = saved.position
        for tensor, copy in zip(self.small, saved.small, strict=True):
            tensor[row] = copy

    def export(self, row: int) -> Arrays:
        """A copy of `row` as arrays; ring columns that no step will see are zero."""
        saved = {name: np.array(array) for name, array in self._row(row)}
        unseen = self.age(self.position[row : row + 1])[0].cpu().numpy() == 0
        for name, array in saved.items():
            if name[0] in "kv":
                array[:, unseen] = 0
        return saved

    def check(self, saved: Arrays) -> None:
        """Raises SnapshotError if `saved` is not of rows like these."""
        check_row(self._like, saved)
        position = int(saved["position"])
        if position < 0 or position % self.chunk_frames:
            raise SnapshotError(
                f"the saved state is damaged: {position} frames are no chunks of {self.chunk_frames}; "
                "open the stream without it"
            )

    def load(self, row: int, saved: Arrays) -> None:
        self.position[row] = int(saved["position"])
        layers = range(len(self.tails))
        for tensor, name in zip(self.front, ("s0", "s1", "s2"), strict=True):
            tensor[row] = torch.from_numpy(saved[name].copy()).to(tensor)
        self.tails[:, row] = torch.from_numpy(np.stack([saved[f"c{i}"] for i in layers])).to(self.tails)
        rings = np.stack([saved[f"{kind}{i}"] for i in layers for kind in "kv"])
        self.rings[:, row] = torch.from_numpy(rings).to(self.rings)

    def age(self, position: Tensor) -> Tensor:
        """(B,) to (B, columns) int64, as RowArrays.age."""
        position = position[:, None]
        age = (position - 1 - self._order) % self.columns + 1
        return torch.where(age > position.clamp(max=self.window), 0, age)

    def left(self, position: Tensor) -> Tensor:
        """(B,) int64: mel frames of the next chunk that lie before the stream."""
        return torch.where(position == 0, PREROLL, 0)

    def commit(self, rows: Tensor, new: Sequence[Tensor], keep: Tensor) -> None:
        """Write a step's new columns and small states into those rows which are to keep them.

        Args:
            rows: (B,) int64; different ones, but for `nobody`, which never keeps anything.
            new: what the step returned behind its frames: s0, s1, s2, then k, v, c of each layer.
            keep: (B,) bool. Others write back what was there, so that nothing depends on how many there are.
        """
        position = self.position[rows]
        columns = (position[:, None] + self._steps) % self.columns
        at = rows[:, None]
        front, layers = new[:3], new[3:]
        for index, fresh in enumerate(layers):
            layer, kind = divmod(index, 3)
            if kind == 2:
                _keep(self.tails[layer], rows, fresh, keep)
                continue
            ring = self.rings[2 * layer + kind].transpose(1, 2)  # (rows, columns, H, d_head)
            kept = torch.where(keep[:, None, None, None], fresh.transpose(1, 2), ring[at, columns])
            ring.index_put_((at, columns), kept)
        for tensor, fresh in zip(self.front, front, strict=True):
            _keep(tensor, rows, fresh, keep)
        self.position.index_put_((rows,), position + keep * self.chunk_frames)

    def _row(self, row: int) -> list[tuple[str, npt.NDArray[Any]]]:
        """Float32 arrays by their names in RowArrays."""
        rings, tails = (tensor[:, row].float().cpu().numpy() for tensor in (self.rings, self.tails))
        named: list[tuple[str, npt.NDArray[Any]]] = [("position", self.position[row].cpu().numpy())]
        named += [(f"{'kv'[i % 2]}{i // 2}", ring) for i, ring in enumerate(rings)]
        named += [(f"s{i}", tensor[row].float().cpu().numpy()) for i, tensor in enumerate(self.front)]
        return named + [(f"c{i}", tail) for i, tail in enumerate(tails)]


def _aligned(rows: int, row_bytes: Sequence[int]) -> int:
    """The least number of rows, that many or more, whose tensors are multiples of ALIGNMENT."""
    step = math.lcm(*(ALIGNMENT // math.gcd(ALIGNMENT, size) for size in row_bytes))
    return -(-rows // step) * step


def _keep(tensor: Tensor, rows: Tensor, fresh: Tensor, keep: Tensor) -> None:
    mask = keep.view(-1, *[1] * (fresh.dim() - 1))
    tensor.index_put_((rows,), torch.where(mask, fresh, tensor[rows]))


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """A context that makes EngineFull of the device's running out of memory; `what`: for which there is none."""
    try:
        yield
    except RuntimeError as error:
        # On the CPU only the text tells it from other errors.
        if isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY in str(error):
            why = str(error).partition("\n")[0]
            raise EngineFull(
                f"the device has no memory for {what} ({why}); lower max_streams, or close the streams of another "
                "model or chunk size",
                RETRY_AFTER,
            ) from error
        raise

"""What encoders on a device have in common: rows whose state stays there, at addresses that never change.

    rows = backend.rows(chunk_frames=2, capacity=64, spare_frames=6)
    encoded = rows.step(3, mel)            # rows 0, 1, 2
    rows.commit(np.array([0, 2]))          # row 1 was not ready: it computed and kept nothing

These rows take mel and give frames as arrays of the host, as every backend's do: device/fused.py keeps both there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nemostream.encoders import Arrays, Floats, Indices, Places
from nemostream.encoders.tensors import RowTensors, SavedTensors
from nemostream.errors import DeviceError, StepFailed, UnsupportedChunk

if TYPE_CHECKING:
    from nemostream.models.info import ModelInfo

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Encode = Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, ...]]
"""One chunk for each row, without a branch that depends on data: it may be captured.

    encoded, *new = encode(rows, mel, prompts, gathered)

rows: (B,) int64; unless `gathered` they are the first B, and their rings are read where they are. mel: (B, 8T, n_mels)
float32. prompts: (B,) int64. Gives (B, T, D) float32, and what RowTensors.commit takes.
"""


class ResidentBackend(ABC):
    """A model's encoder on a device.

    Attributes:
        name: of what computes.
        dtype: of its products and of the rows.
    """

    name: str

    def __init__(self, info: ModelInfo, precision: str, device: str) -> None:
        """
        Args:
            precision: one of DTYPES.
            device: "cpu" or "cuda".

        Raises:
            DeviceError: there is no such device here.
        """
        self.info = info
        self.device, self.dtype = find_device(device), DTYPES[precision]

    @abstractmethod
    def encoder(self, state: RowTensors, most: int) -> Encode:
        """What computes on the rows of `state`, up to `most` at once.

        Raises:
            EngineFull: the device has no memory for it.
            DeviceError: it cannot be had.
        """

    def rows(self, chunk_frames: int, capacity: int, spare_frames: int) -> ResidentRows:
        """Room for `capacity` streams; see EncoderBackend.

        Raises:
            UnsupportedChunk: the model does not offer that chunk size.
            EngineFull, DeviceError: see `encoder`.
        """
        state = self.state(chunk_frames, capacity, spare_frames)
        return ResidentRows(self.encoder(state, capacity), state, self.info.mel.n_mels)

    def state(self, chunk_frames: int, capacity: int, spare_frames: int) -> RowTensors:
        """The rows' memory; raises what `rows` does."""
        if chunk_frames not in self.info.chunk_frames:
            offered = ", ".join(map(str, self.info.chunk_frames))
            raise UnsupportedChunk(f"{self.info.name} has no chunk of {chunk_frames} frames; it offers {offered}")
        shapes = self.info.encoder, self.info.mel
        return RowTensors(*shapes, chunk_frames, capacity, spare_frames, self.dtype, self.device)


class ResidentRows:
    """Rows of state for one chunk size; EncoderRows. Not thread-safe: one thread steps and commits."""

    dense = True

    def __init__(self, encode: Encode, state: RowTensors, n_mels: int) -> None:
        self.chunk_frames, self.capacity = state.chunk_frames, state.nobody
        self._encode, self._device, self._state = encode, state.position.device, state
        self._mel_shape = (8 * state.chunk_frames, n_mels)
        self._every = torch.arange(state.nobody, device=self._device)
        self._batch: Tensor | None = None
        self._new: Sequence[Tensor] = ()

    def reset(self, row: int) -> None:
        """Make `row` that of a stream that has heard nothing."""
        self._state.reset(row)

    def move(self, source: int, target: int) -> None:
        """Copy the state of row `source` into row `target`."""
        self._state.move(source, target)

    def save(self, row: int) -> SavedTensors:
        """What a commit overwrites in place."""
        return self._state.save(row)

    def restore(self, row: int, saved: SavedTensors) -> None:
        """Undo the commits since `save`. Raises ValueError past `spare_frames` frames."""
        self._state.restore(row, saved)

    def export(self, row: int) -> Arrays:
        """A copy of all that later steps of `row` read, in float32."""
        return self._state.export(row)

    def check(self, saved: Arrays) -> None:
        """Raises SnapshotError if `load` would not take it."""
        self._state.check(saved)

    def load(self, row: int, saved: Arrays) -> None:
        """Make `row` the one that was exported, by this backend or by another one of the same model."""
        self._state.load(row, saved)

    @torch.inference_mode()
    def step(self, rows: int | Indices, mel: Floats, prompts: Places | None = None) -> Floats:
        """Encode one chunk for each row; see EncoderRows.

        Raises:
            StepFailed: the device failed, or a row's result is not finite. Nothing was kept.
        """
        self._batch = None
        gathered = not isinstance(rows, (int, np.integer))
        count = len(rows) if isinstance(rows, np.ndarray) else int(rows)
        if mel.shape != (count, *self._mel_shape) or not 0 < count <= self.capacity:
            wanted = (count, *self._mel_shape)
            raise ValueError(f"mel is {mel.shape}, rows are {count} of {self.capacity}: {wanted} is needed")
        batch = torch.from_numpy(np.asarray(rows, np.int64)).to(self._device) if gathered else self._every[:count]
        heard = torch.from_numpy(np.ascontiguousarray(mel)).to(self._device)
        asked = np.zeros(count, np.int64) if prompts is None else np.array(prompts, np.int64)
        try:
            encoded, *self._new = self._encode(batch, heard, torch.from_numpy(asked).to(self._device), gathered)
            result: Floats = encoded.cpu().numpy()
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
            raise StepFailed(
                f"the encoder failed on a batch of {count} ({why}); close the stream and open it again"
            ) from error
        if not np.isfinite(result).all():
            raise StepFailed(
                f"the encoder's result for a batch of {count} is not finite; close the stream and open it again"
            )
        self._batch = batch
        return result

    @torch.inference_mode()
    def commit(self, positions: Indices, undo: Sequence[tuple[int, SavedTensors]] = ()) -> None:
        """Write the columns of the last step for these positions of its batch and put back the rows in `undo`; what
        can raise comes before the first write."""
        if self._batch is None:
            raise ValueError("there is no step to commit")
        for row, saved in undo:
            self._state.check_restore(row, saved)
        keep = np.zeros(len(self._batch), np.bool_)
        keep[np.asarray(positions, np.intp)] = True
        self._state.commit(self._batch, self._new, torch.from_numpy(keep).to(self._device))
        for row, saved in undo:
            self._state.restore(row, saved)


def find_device(device: str) -> torch.device:
    """Raises DeviceError if it is not here."""
    if device == "cuda" and not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        raise DeviceError(
            f"device cuda: torch {torch.__version__} (built for {built}) finds no GPU; install NVIDIA's driver and a "
            "torch for its CUDA, or use device cpu"
        )
    return torch.device(device)


def describe_device(device: torch.device) -> str:
    """What it is, for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"

"""The encoder on the CPU through onnxruntime.

    backend = OnnxBackend(load_bundle("bundles/toy"), "int8", threads=1)
    rows = backend.rows(chunk_frames=2, capacity=64, spare_frames=6)
    encoded = rows.step(3, mel)            # rows 0, 1, 2
    rows.commit(np.array([0, 2]))          # row 1 was not ready: it computed and kept nothing

The rings are ours and stay where they are; onnxruntime reads them and writes into our buffers by address (IO binding),
so a step over the first n rows copies no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nemostream.encoders import Arrays, Floats, Indices, Places
from nemostream.encoders.state import RowArrays, SavedRow
from nemostream.errors import BundleError, StepFailed, UnsupportedChunk

if TYPE_CHECKING:
    from nemostream.models.bundle import Bundle

_BINDINGS_KEPT = 64


class OnnxBackend:
    """A bundle's encoder graph, loaded once; every chunk size runs on it.

    Attributes:
        name: of what computes.
    """

    def __init__(self, bundle: Bundle, precision: str, threads: int | None) -> None:
        """Load the graph.

        Args:
            precision: "fp32" or "int8", one that the bundle holds.
            threads: for one step; None: one per core.

        Raises:
            BundleError: the bundle lacks that precision, or onnxruntime cannot load its graph.
        """
        self.info = bundle.info
        self.name = runtime()
        path = bundle.encoder(precision)
        self.session = open_session(path, threads, "convert the model again")
        found = [item.name for item in self.session.get_inputs()]
        if found != self._names():
            raise BundleError(f"{path}: the graph's inputs are not those of a streaming step; convert the model again.")

    def rows(self, chunk_frames: int, capacity: int, spare_frames: int) -> OnnxRows:
        """Room for `capacity` streams; see EncoderBackend.

        Raises:
            UnsupportedChunk: the bundle does not offer that chunk size.
        """
        if chunk_frames not in self.info.chunk_frames:
            offered = ", ".join(map(str, self.info.chunk_frames))
            raise UnsupportedChunk(f"{self.info.name} has no chunk of {chunk_frames} frames; it offers {offered}")
        return OnnxRows(self, chunk_frames, capacity, spare_frames)

    def _names(self) -> list[str]:
        layers = range(self.info.encoder.n_layers)
        prompt = ["prompt"] if self.info.prompts else []
        return ["mel", "left", "age", *prompt, "s0", "s1", "s2"] + [f"{kind}{i}" for i in layers for kind in "kvc"]


class OnnxRows:
    """Rows of state for one chunk size; EncoderRows. Not thread-safe: one thread steps and commits."""

    dense = True

    def __init__(self, backend: OnnxBackend, chunk_frames: int, capacity: int, spare_frames: int) -> None:
        info, encoder = backend.info, backend.info.encoder
        self.chunk_frames, self.capacity = chunk_frames, capacity
        self._session = backend.session
        self._state = RowArrays(encoder, info.mel, chunk_frames, capacity, spare_frames)
        state = self._state
        self._mel = np.empty((capacity, 8 * chunk_frames, info.mel.n_mels), np.float32)
        self._left = np.empty(capacity, np.int64)
        self._age = np.empty((capacity, state.columns), np.int64)
        self._prompt: Places = np.empty(capacity, np.int64)
        self._prompted = bool(info.prompts)
        # Outputs are flat: the first n rows of any batch size start at the same address and stay contiguous.
        self._enc = np.empty((capacity, chunk_frames, encoder.d_model), np.float32)
        column = (capacity, encoder.n_heads, chunk_frames, encoder.d_head)
        self._new_rings: list[Floats] = [np.empty(column, np.float32) for _ in state.rings]
        self._new_small: list[Floats] = [np.empty_like(array) for array in state.small]
        self._gathered: list[Floats] = []
        self._bindings: dict[tuple[int, bool], Any] = {}
        self._batch: Indices | None = None

    def reset(self, row: int) -> None:
        """Make `row` that of a stream that has heard nothing."""
        self._state.reset(row)

    def move(self, source: int, target: int) -> None:
        """Copy the state of row `source` into row `target`."""
        self._state.move(source, target)

    def save(self, row: int) -> SavedRow:
        """What a commit overwrites in place."""
        return self._state.save(row)

    def restore(self, row: int, saved: SavedRow) -> None:
        """Undo the commits since `save`. Raises ValueError past `spare_frames` frames."""
        self._state.restore(row, saved)

    def export(self, row: int) -> Arrays:
        """A copy of all that later steps of `row` read."""
        return self._state.export(row)

    def check(self, saved: Arrays) -> None:
        """Raises SnapshotError if `load` would not take it."""
        self._state.check(saved)

    def load(self, row: int, saved: Arrays) -> None:
        """Make `row` the one that was exported."""
        self._state.load(row, saved)

    def step(self, rows: int | Indices, mel: Floats, prompts: Places | None = None) -> Floats:
        """Encode one chunk for each row; see EncoderRows.

        Raises:
            StepFailed: onnxruntime failed, or a row's result is not finite. Nothing was kept.
        """
        self._batch = None
        gather = not isinstance(rows, (int, np.integer))
        index = np.asarray(rows, np.intp) if gather else np.arange(int(rows))
        count = len(index)
        wanted = (count, *self._mel.shape[1:])
        if mel.shape != wanted or not 0 < count <= self.capacity:
            raise ValueError(f"mel is {mel.shape}, rows are {count} of {self.capacity}: {wanted} is needed")
        chosen = index if gather else slice(0, count)
        self._mel[:count] = mel
        self._left[:count] = self._state.left(chosen)
        self._age[:count] = self._state.age(chosen)
        self._prompt[:count] = 0 if prompts is None else prompts
        if gather:
            self._gather(index)
        try:
            self._session.run_with_iobinding(self._binding(count, gather))
        except Exception as error:  # onnxruntime's classes share no public base
            raise StepFailed(
                f"the encoder failed on a batch of {count} ({first_line(error)}); close the stream and open it again"
            ) from error
        encoded = self._enc[:count]
        if not np.isfinite(encoded).all():
            # Kept, it would stay: a masked column weighs nothing, but 0 * nan is nan.
            raise StepFailed(
                f"the encoder's result for a batch of {count} is not finite; close the stream and open it again"
            )
        self._batch = index
        return encoded

    def commit(self, positions: Indices, undo: Sequence[tuple[int, SavedRow]] = ()) -> None:
        """Write the columns of the last step for these positions of its batch and put back the rows in `undo`; what
        can raise comes before the first write."""
        if self._batch is None:
            raise ValueError("there is no step to commit")
        positions = np.asarray(positions, np.intp)
        rows = self._batch[positions]
        for row, saved in undo:
            self._state.check_restore(row, saved)
        self._state.commit(rows, self._new_rings, self._new_small, positions)
        for row, saved in undo:
            self._state.restore(row, saved)

    def _gather(self, rows: Indices) -> None:
        if not self._gathered:
            self._gathered = [np.empty_like(array) for array in (*self._state.rings, *self._state.small)]
        for array, copy in zip((*self._state.rings, *self._state.small), self._gathered, strict=True):
            np.take(array, rows, axis=0, out=copy[: len(rows)], mode="clip")

    def _binding(self, count: int, gather: bool) -> Any:
        """Addresses never change, so a binding is made once for each batch size."""
        key = (count, gather)
        if key not in self._bindings:
            if len(self._bindings) >= _BINDINGS_KEPT:
                self._bindings.clear()
            binding = self._session.io_binding()
            names = [*self._state.ring_names, *self._state.small_names]
            arrays = self._gathered if gather else [*self._state.rings, *self._state.small]
            inputs: list[tuple[str, npt.NDArray[Any]]] = [("mel", self._mel), ("left", self._left), ("age", self._age)]
            if self._prompted:
                inputs.append(("prompt", self._prompt))
            for name, array in (*inputs, *zip(names, arrays, strict=True)):
                binding.bind_input(name, "cpu", 0, array.dtype.type, (count, *array.shape[1:]), array.ctypes.data)
            outputs = [f"{name}_new" for name in names]
            for name, array in (("enc", self._enc), *zip(outputs, (*self._new_rings, *self._new_small), strict=True)):
                binding.bind_output(name, "cpu", 0, array.dtype.type, (count, *array.shape[1:]), array.ctypes.data)
            self._bindings[key] = binding
        return self._bindings[key]


def open_session(path: Path, threads: int | None, remedy: str) -> Any:
    """onnxruntime's session of a graph, on the CPU.

    Args:
        threads: for one run; None: one per core.
        remedy: what to do if it cannot be loaded.

    Raises:
        BundleError: it cannot.
    """
    from nemostream.ort import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # Idle threads sleep: they share their cores with mel, decoding and the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes share no public base
        raise BundleError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load this graph ({first_line(error)}); {remedy}."
        ) from error


def runtime() -> str:
    """onnxruntime and its version."""
    from nemostream.ort import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def first_line(error: Exception) -> str:
    """What an error says, without the stack that onnxruntime adds."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

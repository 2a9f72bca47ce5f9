"""The encoder of a sherpa-onnx folder (models/sherpa.py) on the CPU: NeMo's own streaming graph.

    backend = SherpaBackend(find(Path("sherpa-onnx-nemo-..."), None), threads=1)
    rows = backend.rows(chunk_frames=2, capacity=64, spare_frames=4)
    decoder = backend.decoder(capacity=64)

Its window is our chunk and the OVERLAP mel frames before, which a row keeps; the two frames that the overlap yields are
dropped within the graph. So frame t of a stream is NeMo's offline frame t.

The first chunk is not exact. The 16 mel frames before a stream are zero here, as NeMo's streaming has them; in training
it is the subsampling's own padding that is zero, behind each convolution. A bundle's graph mends that, this one cannot.

A stream's text must not depend on who shares its batch. onnxruntime's dynamic quantisation takes one scale for a whole
tensor, that is for all rows: such a graph runs one row at a time.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nemostream.encoders import Arrays, Floats, Indices, Places, check_row, export_row
from nemostream.encoders.onnx import first_line, open_session, runtime
from nemostream.errors import BundleError, SnapshotError, StepFailed, UnsupportedChunk
from nemostream.greedy_onnx import OnnxTransducer, Transducer
from nemostream.models.sherpa import INPUTS, OVERLAP, describe

if TYPE_CHECKING:
    from pathlib import Path

    from nemostream.models.sherpa import Graphs

QUANTIZED = b"DynamicQuantize"
"""Begins the names of all operators that take a scale of their input as a whole."""
STATE = ("channel", "time", "length")
"""A row's arrays, in the order of the graph's caches; and the overlap, "mel"."""
_REMEDY = "copy it again, or update onnxruntime"


class SherpaBackend:
    """The three graphs of a folder, loaded once, for one chunk size.

    Attributes:
        bundle: what the folder stands for.
        batched: several rows may run at once.
        name: of what computes.
    """

    def __init__(self, graphs: Graphs, threads: int | None) -> None:
        """Load the graphs and try each of them.

        Args:
            threads: of the encoder; None: one per core.

        Raises:
            BundleError: onnxruntime cannot load one, or it is not what it should be.
        """
        self.name = runtime()
        self.session = open_session(graphs.encoder, threads, _REMEDY)
        shapes = {item.name: item.shape for item in self.session.get_inputs()}
        self.bundle = describe(graphs, self.session.get_modelmeta().custom_metadata_map, shapes)
        info = self.bundle.info
        self.batched = not isinstance(shapes["audio_signal"][0], int) and not _quantized(graphs.encoder)
        self._transducer = Transducer(graphs.decoder, graphs.joiner, info.vocab_size, info.encoder.d_model)
        try:
            SherpaRows(self, 1).step(1, np.zeros((1, 8 * info.default_chunk_frames, info.mel.n_mels), np.float32))
        except (StepFailed, ValueError) as error:
            raise BundleError(
                f"{graphs.encoder}: it does not do what its metadata says ({error}); export it again."
            ) from error

    def rows(self, chunk_frames: int, capacity: int, spare_frames: int) -> SherpaRows:
        """Room for `capacity` streams; see EncoderBackend. Undoing commits takes no `spare_frames` here.

        Raises:
            UnsupportedChunk: the graph is of another chunk size.
        """
        info = self.bundle.info
        if chunk_frames not in info.chunk_frames:
            raise UnsupportedChunk(f"{info.name} has chunks of {info.default_chunk_frames} frames, not {chunk_frames}")
        return SherpaRows(self, capacity)

    def decoder(self, capacity: int) -> OnnxTransducer:
        """Greedy decoding for as many streams."""
        return OnnxTransducer(self._transducer, self.bundle.info.max_symbols, capacity)


class SherpaRows:
    """Rows of NeMo's caches; EncoderRows. Not thread-safe: one thread steps and commits."""

    dense = False

    def __init__(self, backend: SherpaBackend, capacity: int) -> None:
        info, encoder = backend.bundle.info, backend.bundle.info.encoder
        self.chunk_frames, self.capacity = info.default_chunk_frames, capacity
        self._session, self._batched = backend.session, backend.batched
        layers, width = encoder.n_layers, encoder.d_model
        self._window = OVERLAP + 8 * self.chunk_frames
        self._encoded = (self.chunk_frames, width)
        # np.zeros maps pages on first touch: a row that was never used costs no memory.
        self._arrays: Arrays = {
            "mel": np.zeros((capacity, OVERLAP, info.mel.n_mels), np.float32),
            "channel": np.zeros((capacity, layers, encoder.left_context, width), np.float32),
            "time": np.zeros((capacity, layers, width, encoder.conv_kernel - 1), np.float32),
            "length": np.zeros(capacity, np.int64),
        }
        self._left_context = encoder.left_context
        self._batch: Indices | None = None
        self._new: Arrays = {}

    def reset(self, row: int) -> None:
        """Make `row` that of a stream that has heard nothing."""
        for array in self._arrays.values():
            array[row] = 0

    def move(self, source: int, target: int) -> None:
        """Copy the state of row `source` into row `target`."""
        for array in self._arrays.values():
            array[target] = array[source]

    def export(self, row: int) -> Arrays:
        """A copy of all that later steps of `row` read."""
        return export_row(self._arrays, row)

    def check(self, saved: Arrays) -> None:
        """Raises SnapshotError if `load` would not take it."""
        check_row(self._arrays, saved)
        if not 0 <= saved["length"] <= self._left_context:
            raise SnapshotError(
                f"the saved state is damaged: {saved['length']} frames in a cache of {self._left_context}; "
                "open the stream without it"
            )

    def load(self, row: int, saved: Arrays) -> None:
        """Make `row` the one that was exported."""
        for name, array in self._arrays.items():
            array[row] = saved[name]

    def save(self, row: int) -> Arrays:
        """The whole row: NeMo's caches move with every chunk, so that nothing of them can be told from a position."""
        return self.export(row)

    def restore(self, row: int, saved: Arrays) -> None:
        """Undo the commits since `save`, however many."""
        self.load(row, saved)

    def step(self, rows: int | Indices, mel: Floats, prompts: Places | None = None) -> Floats:
        """Encode one chunk for each row; see EncoderRows.

        Raises:
            StepFailed: onnxruntime failed, or a row's result is not finite. Nothing was kept.
        """
        self._batch = None
        index = np.arange(rows) if isinstance(rows, (int, np.integer)) else np.asarray(rows, np.intp)
        count = len(index)
        mels = self._arrays["mel"].shape[2]
        if mel.shape != (count, 8 * self.chunk_frames, mels) or not 0 < count <= self.capacity:
            raise ValueError(f"mel is {mel.shape} for {count} rows of {self.capacity}")
        window = np.concatenate([self._arrays["mel"][index], mel], axis=1)
        lengths = np.full(count, self._window, np.int64)
        signal = np.ascontiguousarray(window.transpose(0, 2, 1))
        feeds = dict(zip(INPUTS, (signal, lengths, *(self._arrays[name][index] for name in STATE)), strict=True))
        encoded, *caches = self._run(feeds, count)
        if encoded.shape != (count, *self._encoded[::-1]):
            raise StepFailed(f"the encoder gave {encoded.shape} for a batch of {count} chunks of {self._encoded}")
        frames: Floats = np.ascontiguousarray(encoded.transpose(0, 2, 1))
        if not np.isfinite(frames).all():
            raise StepFailed(
                f"the encoder's result for a batch of {count} is not finite; close the stream and open it again"
            )
        self._new = {"mel": window[:, -OVERLAP:], **dict(zip(STATE, caches, strict=True))}
        self._batch = index
        return frames

    def commit(self, positions: Indices, undo: Sequence[tuple[int, Arrays]] = ()) -> None:
        """Write the new states for these positions of the last step's batch and put back the rows in `undo`."""
        if self._batch is None:
            raise ValueError("there is no step to commit")
        positions = np.asarray(positions, np.intp)
        rows = self._batch[positions]
        for name, array in self._arrays.items():
            array[rows] = self._new[name][positions]
        for row, saved in undo:
            self.restore(row, saved)

    def _run(self, feeds: Arrays, count: int) -> list[npt.NDArray[Any]]:
        """Encoded frames (B, D, T), and the caches as they come out."""
        size = count if self._batched else 1
        try:
            parts = [
                self._session.run(None, {name: array[i : i + size] for name, array in feeds.items()})
                for i in range(0, count, size)
            ]
        except Exception as error:  # onnxruntime's classes share no public base
            raise StepFailed(
                f"the encoder failed on a batch of {count} ({first_line(error)}); close the stream and open it again"
            ) from error
        outputs = parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]
        encoded, _, *caches = outputs
        wanted = [(count, *self._arrays[name].shape[1:]) for name in STATE]
        if (found := [cache.shape for cache in caches]) != wanted:
            raise StepFailed(f"the encoder's caches are {found} behind a step, not {wanted}")
        return [encoded, *caches]


def _quantized(path: Path) -> bool:
    """Whether the graph names such an operator: onnxruntime does not list the nodes of one."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(QUANTIZED) >= 0

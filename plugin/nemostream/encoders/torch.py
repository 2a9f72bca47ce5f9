"""The encoder in torch, on a GPU or on the CPU: the module that is exported for onnxruntime (models/step.py), as it is.

    backend = TorchBackend.load(load_bundle("bundles/toy"), "bf16", "cuda")
    rows = backend.rows(chunk_frames=2, capacity=64, spare_frames=6)
    encoded = rows.step(3, mel)            # rows 0, 1, 2
    rows.commit(np.array([0, 2]))          # row 1 was not ready: it computed and kept nothing

The state stays on the device, at addresses that never change; a step over the first n rows copies none of it. These
rows take mel and give frames as arrays of the host, as every backend does: fused.py keeps both on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from nemostream.encoders import Arrays, Floats, Indices, Places
from nemostream.encoders.tensors import RowTensors, SavedTensors, enough_memory
from nemostream.errors import BundleError, DeviceError, StepFailed, UnsupportedChunk
from nemostream.models.config import EncoderConfig
from nemostream.models.conformer import ConformerEncoder
from nemostream.models.initializers import encoder_weights
from nemostream.models.step import StreamingStep

if TYPE_CHECKING:
    from nemostream.models.bundle import Bundle
    from nemostream.models.info import ModelInfo

FRONT_MEL_FRAMES = 32_768
"""That go through the front end at once: its first stage makes 1.1 GB of them (256 channels, 128 mels, float32)."""
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchBackend:
    """A bundle's encoder on a device, loaded once; every chunk size runs on it.

    Attributes:
        name: of what computes.
        module: the step, in eval mode.
        dtype: of its products and of the rows.
    """

    def __init__(self, info: ModelInfo, module: StreamingStep, precision: str, device: str) -> None:
        """Take `module` to the device.

        Args:
            module: in float32 and eval mode; it is changed.
            precision: one of DTYPES.
            device: "cpu" or "cuda".

        Raises:
            DeviceError: there is no such device here.
            EngineFull: it has no memory for the weights.
        """
        self.info = info
        self.device, self.dtype = find_device(device), DTYPES[precision]
        self.name = f"torch {torch.__version__}, {describe_device(self.device)}"
        with enough_memory("the model's weights"):
            self.module = module.reduce(self.dtype).to(self.device)
        self.module.add_module("front", _Sliced(self.module.front))
        if self.device.type == "cuda" and self.dtype == torch.float32:
            torch.backends.cudnn.allow_tf32 = (
                False  # matrix products are exact unless asked otherwise, convolutions not
            )

    @classmethod
    def load(cls, bundle: Bundle, precision: str, device: str) -> TorchBackend:
        """With the weights of the bundle's fp32 graph, else with what int8 left of them.

        Raises:
            DeviceError, EngineFull: see above.
            BundleError: the weights cannot be read, or are not those of a step of these shapes.
        """
        find_device(device)  # before anything is read
        return cls(bundle.info, make_step(bundle.info, encoder_weights(bundle), str(bundle.path)), precision, device)

    def rows(self, chunk_frames: int, capacity: int, spare_frames: int) -> TorchRows:
        """Room for `capacity` streams; see EncoderBackend.

        Raises:
            UnsupportedChunk: the bundle does not offer that chunk size.
            EngineFull: the device has no memory for so many rows.
        """
        return TorchRows(self, self.state(chunk_frames, capacity, spare_frames))

    def state(self, chunk_frames: int, capacity: int, spare_frames: int) -> RowTensors:
        """The rows' memory; raises what `rows` does."""
        if chunk_frames not in self.info.chunk_frames:
            offered = ", ".join(map(str, self.info.chunk_frames))
            raise UnsupportedChunk(f"{self.info.name} has no chunk of {chunk_frames} frames; it offers {offered}")
        shapes = self.info.encoder, self.info.mel
        return RowTensors(*shapes, chunk_frames, capacity, spare_frames, self.dtype, self.device)


class TorchRows:
    """Rows of state for one chunk size; EncoderRows. Not thread-safe: one thread steps and commits."""

    dense = True

    def __init__(self, backend: TorchBackend, state: RowTensors) -> None:
        self.chunk_frames, self.capacity = state.chunk_frames, state.nobody
        self._module, self._device, self._state = backend.module, backend.device, state
        self._mel_shape = (8 * state.chunk_frames, backend.info.mel.n_mels)
        self._every = torch.arange(state.nobody, device=backend.device)
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
            StepFailed: torch failed, or a row's result is not finite. Nothing was kept.
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
            encoded, *self._new = encode(
                self._module, self._state, batch, heard, torch.from_numpy(asked).to(self._device), gathered
            )
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


class _Sliced(nn.Module):
    """The front end over so many rows at a time: between its stages a row takes 256 times the memory of its mel."""

    def __init__(self, front: nn.Module) -> None:
        super().__init__()
        self.front = front

    def forward(self, mel: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        at_once = max(1, FRONT_MEL_FRAMES // mel.shape[1])
        if len(mel) <= at_once:
            whole: tuple[Tensor, ...] = self.front(mel, *others)
            return whole
        inputs = [torch.split(tensor, at_once) for tensor in (mel, *others)]
        parts = [self.front(*slices) for slices in zip(*inputs, strict=True)]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def encode(
    module: StreamingStep, state: RowTensors, rows: Tensor, mel: Tensor, prompts: Tensor, gathered: bool
) -> tuple[Tensor, ...]:
    """One chunk for each row, without a branch that depends on data: it may be captured.

    Args:
        rows: (B,) int64; unless `gathered` they are the first B, and their rings are read where they are.
        mel: (B, 8T, n_mels) float32.
        prompts: (B,) int64.

    Returns:
        (B, T, D) float32, and what RowTensors.commit takes.
    """
    count = len(rows)

    def of(tensor: Tensor) -> Tensor:
        return tensor[rows] if gathered else tensor[:count]

    def remembered(layer: int) -> tuple[Tensor, Tensor, Tensor]:
        # Each layer's rows are gathered in its turn, so that there is one copy of one layer's rings at a time.
        return of(state.rings[2 * layer]), of(state.rings[2 * layer + 1]), of(state.tails[layer])

    position = of(state.position)
    front = [of(tensor) for tensor in state.front]
    encoded, *new = module.encode(mel, state.left(position), state.age(position), prompts, front, remembered)
    return encoded.float(), *new


def make_step(info: ModelInfo, weights: Mapping[str, Floats], where: str) -> StreamingStep:
    """The streaming step of a bundle with these weights (its state dict), in eval mode.

    Raises:
        BundleError: they are not those of a step of these shapes; `where` names them.
    """
    encoder = info.encoder
    if "layers.0.feed1.0.weight" not in weights:
        raise BundleError(f"{where}: the graph is not that of a streaming step; convert the model again.")
    config = EncoderConfig(
        n_mels=info.mel.n_mels,
        n_layers=encoder.n_layers,
        d_model=encoder.d_model,
        n_heads=encoder.n_heads,
        left_context=encoder.left_context,
        lookaheads=tuple(t - 1 for t in info.chunk_frames),
        lookahead_weights=(1.0,) * len(info.chunk_frames),
        ff_expansion=weights["layers.0.feed1.0.weight"].shape[1] // encoder.d_model,
        conv_kernel=encoder.conv_kernel,
        subsampling_channels=encoder.subsampling_channels,
        use_bias="layers.0.feed1.0.bias" in weights,
        xscaling=False,  # it is in the weights already
    )
    with torch.device("meta"):
        kernel = None
        if "prompt.rows" in weights:
            places, hidden = weights["prompt.rows"].shape
            first = nn.Linear(encoder.d_model + places, hidden)
            kernel = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, encoder.d_model))
        step = StreamingStep(ConformerEncoder(config), kernel)
    try:
        # Copies: what was read from a file's pages cannot be written, and torch says so each time.
        step.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()}, assign=True)
    except RuntimeError as error:
        raise BundleError(f"{where}: {' '.join(str(error).split())[:300]}; convert the model again.") from error
    return step.eval().requires_grad_(False)


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

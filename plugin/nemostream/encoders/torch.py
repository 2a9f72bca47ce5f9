"""The encoder in torch, on a GPU or on the CPU: the module that is exported for onnxruntime (models/step.py), as it is.

    backend = TorchBackend.load(load_bundle("bundles/toy"), "bf16", "cuda")

A step over the first n rows copies none of their rings.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nemostream.alone import ALONE
from nemostream.encoders.resident import Encode, ResidentBackend, describe_device, find_device
from nemostream.encoders.tensors import RowTensors, enough_memory
from nemostream.models.initializers import encoder_weights
from nemostream.models.restore import make_step
from nemostream.models.step import StreamingStep

if TYPE_CHECKING:
    from nemostream.models.bundle import Bundle
    from nemostream.models.info import ModelInfo

FRONT_MEL_FRAMES = 32_768
"""That go through the front end at once: its first stage makes 1.1 GB of them (256 channels, 128 mels, float32)."""


class TorchBackend(ResidentBackend):
    """A bundle's encoder on a device, loaded once; every chunk size runs on it.

    Attributes:
        module: the step, in eval mode.
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
        super().__init__(info, precision, device)
        self.name = f"torch {torch.__version__}, {describe_device(self.device)}"
        with ALONE, enough_memory("the model's weights"):
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

    def encoder(self, state: RowTensors, most: int) -> Encode:
        return partial(encode, self.module, state)


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
    """Encode (resident.py) with `module`."""
    count = len(rows)

    def of(tensor: Tensor) -> Tensor:
        return tensor[rows] if gathered else tensor[:count]

    def remembered(layer: int) -> tuple[Tensor, Tensor, Tensor]:
        # Each layer's rows are gathered in its turn, so that there is one copy of one layer's rings at a time.
        return of(state.rings[2 * layer]), of(state.rings[2 * layer + 1]), of(state.tails[layer])

    position = of(state.position)
    front = [of(tensor) for tensor in state.front]
    return module.encode(mel, state.left(position), state.age(position), prompts, front, remembered)

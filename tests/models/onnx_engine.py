"""Where there is no GPU: what TensorRT's engine and its contexts are asked, answered by onnxruntime on the same graph.

The real ones run nowhere else, so this stands in for those two objects of NVIDIA's and for nothing of ours. It takes
what they take, addresses and not tensors, and refuses what they refuse: a batch outside the profile, an input that has
no address, a shape that is not the graph's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nemostream.encoders.trt import Range

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


class OnnxEngine:
    """ICudaEngine. `runs` counts steps of all contexts; `contexts` are those that were made."""

    device_memory_size_v2 = 1000

    def __init__(self, graph: Path, profiles: Sequence[Range]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.ends = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.profiles, self.contexts = profiles, list[OnnxContext]()

    @property
    def runs(self) -> int:
        return sum(context.runs for context in self.contexts)

    @property
    def num_io_tensors(self) -> int:
        return len(self.ends)

    def get_tensor_name(self, index: int) -> str:
        name: str = self.ends[index].name
        return name

    def get_tensor_mode(self, name: str) -> str:
        kind = "INPUT" if any(end.name == name for end in self.session.get_inputs()) else "OUTPUT"
        return f"TensorIOMode.{kind}"

    def context(self) -> OnnxContext:
        self.contexts.append(OnnxContext(self))
        return self.contexts[-1]


class OnnxContext:
    """IExecutionContext."""

    def __init__(self, engine: OnnxEngine) -> None:
        self._engine, self.runs = engine, 0
        self._ends = {end.name: end for end in engine.ends}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.profile: Range | None = None
        self.memory = 0

    def set_device_memory(self, address: int, size: int) -> None:
        assert address and size == self._engine.device_memory_size_v2
        self.memory = size

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = self._engine.profiles[index]
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        self._shapes[name] = shape
        fits = all(isinstance(d, str) or d == n for d, n in zip(self._ends[name].shape, shape, strict=True))
        return fits and self.profile.least <= shape[0] <= self.profile.most

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._ends

    def execute_async_v3(self, stream: int) -> bool:
        if self._addresses.keys() != self._ends.keys() or not self.memory:
            return False
        given = {end.name: self._at(end, self._shapes[end.name]) for end in self._engine.session.get_inputs()}
        for end, found in zip(self._engine.session.get_outputs(), self._engine.session.run(None, given), strict=True):
            self._at(end, found.shape)[:] = found
        self.runs += 1
        return True

    def _at(self, end: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        dtype = np.dtype(_DTYPES[end.type])
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_char * size).from_address(self._addresses[end.name])
        return np.frombuffer(memory, dtype).reshape(shape)

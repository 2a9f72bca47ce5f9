"""NVIDIA's TensorRT and TensorRT for RTX as one: a graph becomes a plan, a plan becomes an engine.

    api = find()                                          # the one that serves the GPU that is here
    plan, timing = api.build(Path("step.onnx"), ranges(1024), b"", print)
    engine = api.load(plan)
    context = engine.context(profile=0, workspace=workspace, stream=stream)
    context.run({"mel": mel, "enc": enc, ...}, stream)    # nothing is copied

All that is asked of the two packages stands here, and all that differs between their versions in `_Differences`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nemostream.alone import ALONE
from nemostream.encoders.trt_report import Phases, interruptible, listener, log_of
from nemostream.errors import DeviceError

TENSORRT, FOR_RTX = "tensorrt", "tensorrt_rtx"
EDGES = (8, 64, 512)
"""Where one profile's batches end and the next one's begin: a kernel that is best for 500 rows is not for one."""
MEL_FRAMES = 32_768
"""That an engine takes at once; larger batches go through it in parts. Between the stages of the front end each takes
35 kB (256 channels, 128 mels, float32)."""
PART_ROWS = 64
"""Parts are multiples of so many rows: their addresses must be ones that 256 divides."""


@dataclass(frozen=True, slots=True)
class Range:
    """Batch sizes of a profile. It is tuned for the largest: that is when time is short."""

    least: int
    most: int


def ranges(most: int) -> list[Range]:
    """Of all batches up to `most`."""
    edges = [*(edge for edge in EDGES if edge < most), most]
    return [Range(least + 1, edge) for least, edge in zip([0, *edges[:-1]], edges, strict=True)]


def at_once(frames: int, most: int) -> int:
    """Rows of one run of an engine."""
    return min(most, max(PART_ROWS, MEL_FRAMES // (8 * frames) // PART_ROWS * PART_ROWS))


def find(target: str | None = None) -> Api:
    """What serves the GPU that is here, or `target`, one elsewhere, as "sm89" (TensorRT for RTX alone can do that).

    Raises:
        DeviceError: there is no GPU, or neither package serves it.
    """
    if target is None:
        if not torch.cuda.is_available():
            raise DeviceError("TensorRT computes on a GPU, and there is none; use device cuda where there is one")
        target = "sm{}{}".format(*torch.cuda.get_device_capability())
        if (package := _package(TENSORRT)) is not None:
            return Api(package, target, f"{target} {torch.cuda.get_device_name()}")
    package = _package(FOR_RTX)
    if package is None:
        raise DeviceError(
            "TensorRT is not installed; run pip install 'livekit-plugins-nemo[tensorrt]', or for a GeForce or RTX card "
            "pip install 'tensorrt-rtx>=1.5'"
        )
    if target.upper() not in package.ComputeCapability.__members__:
        known = ", ".join(name.lower() for name in package.ComputeCapability.__members__ if name.startswith("SM"))
        raise DeviceError(
            f"TensorRT for RTX serves {known}, not {target}; run pip install 'livekit-plugins-nemo[tensorrt]'"
        )
    return Api(package, target, target)


class Api:
    """One of the two packages, for one GPU.

    Attributes:
        name: package and version, for people.
        identity: plans of another one do not run here.
    """

    def __init__(self, package: ModuleType, target: str, gpu: str) -> None:
        self._package, self._target = package, target
        self._differences = _Differences(package)
        self.name = f"{'TensorRT for RTX' if self._differences.for_rtx else 'TensorRT'} {package.__version__}"
        self.identity = f"{self.name} on {gpu}"

    def build(
        self, graph: Path, sizes: Iterable[Range], timing: bytes, say: Callable[[str], None]
    ) -> tuple[bytes, bytes]:
        """A plan of an ONNX graph whose only free dimension is the first of each input. Precision is that of the graph.

        Args:
            timing: what an earlier build on this GPU learnt, or nothing.
            say: is told how far it is, in words.

        Returns:
            The plan, and what this build learnt.

        Raises:
            DeviceError: TensorRT does not take the graph.
        """
        trt, log = self._package, log_of(self._package)
        log.errors.clear()
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(graph)):
            why = parser.get_error(0).desc() if parser.num_errors else log.why()
            raise DeviceError(f"{self.name} does not read the graph ({why})")
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is asked for where it is to be exact
        # Streams of its own would be drawn into a capture, and may be of the kind that wait for the default one.
        config.max_aux_streams = 0
        learnt = self._differences.settle(config, self._target, timing)
        monitor = listener(trt, Phases(say), log)  # must live as long as the build
        config.progress_monitor = monitor
        for size in sizes:
            profile = builder.create_optimization_profile()
            for i in range(network.num_inputs):
                given = network.get_input(i)
                rest = tuple(given.shape)[1:]
                profile.set_shape(given.name, (size.least, *rest), (size.most, *rest), (size.most, *rest))
            config.add_optimization_profile(profile)
        with ALONE, interruptible(log):
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise DeviceError(f"{self.name} does not build the graph ({log.why()})")
        return bytes(plan), learnt()

    def load(self, plan: bytes) -> Engine:
        """Take a plan to the GPU.

        Raises:
            DeviceError: it does not run here, or there is no memory for its weights.
        """
        log = log_of(self._package)
        log.errors.clear()
        runtime = self._package.Runtime(log)
        with ALONE:
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise DeviceError(f"{self.name} does not load its plan ({log.why()})")
        return Engine(engine, self._differences.contexts(engine), runtime)


class Engine:
    """A plan on the GPU. `memory`: bytes that a step needs for what it computes, whichever context runs it."""

    def __init__(self, engine: Any, make_context: Callable[[], Any], keep: Any = None) -> None:
        """`engine`: an ICudaEngine; `make_context`: makes its contexts, without memory; `keep`: what it needs alive."""
        self._engine, self._make_context, self._keep = engine, make_context, keep
        self.memory = int(engine.device_memory_size_v2)
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.inputs = frozenset(n for n in names if str(engine.get_tensor_mode(n)).endswith("INPUT"))

    def context(self, profile: int, workspace: Tensor, stream: int) -> Context:
        """Something that runs steps: one for each captured graph, as TensorRT asks for.

        Args:
            workspace: (memory,) uint8. Contexts that never run at once may have the same.
        """
        context = self._make_context()
        if context is None:
            raise RuntimeError("TensorRT made no context")
        if not context.set_optimization_profile_async(profile, stream):
            raise RuntimeError(f"TensorRT did not take profile {profile}")
        context.set_device_memory(workspace.data_ptr(), self.memory)
        return Context(context, self.inputs)


class Context:
    """Runs steps of one size."""

    def __init__(self, context: Any, inputs: frozenset[str]) -> None:
        self._context, self._inputs = context, inputs

    def run(self, tensors: Mapping[str, Tensor], stream: int) -> None:
        """Enqueue a step that reads its inputs and writes its outputs where these tensors are: contiguous, and at
        addresses that 256 divides.

        Raises:
            RuntimeError: TensorRT refused.
        """
        for name, tensor in tensors.items():
            given = self._context.set_input_shape(name, tuple(tensor.shape)) if name in self._inputs else True
            if not given or not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise RuntimeError(f"TensorRT did not take {name} of {tuple(tensor.shape)}")
        if not self._context.execute_async_v3(stream):
            raise RuntimeError("TensorRT did not run the step")


class _Differences:
    """Between TensorRT 10, TensorRT 11 and TensorRT for RTX."""

    def __init__(self, package: ModuleType) -> None:
        self._package = package
        self.for_rtx = package.__name__ == FOR_RTX

    def settle(self, config: Any, target: str, timing: bytes) -> Callable[[], bytes]:
        """Set what a builder's config needs beyond what is common; what gives the timings that the build learnt."""
        if self.for_rtx:  # builds for any GPU, tunes on it at load, and has no timings
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(self._package.ComputeCapability, target.upper()), 0)
            config.set_flag(self._package.BuilderFlag.REQUIRE_USER_ALLOCATION)  # else steps cannot be captured
            return lambda: b""
        # What was learnt elsewhere, or was damaged, is not taken: then this build learns anew.
        cache = config.create_timing_cache(timing)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

        def learnt() -> bytes:
            cache = config.get_timing_cache()
            return b"" if cache is None else bytes(cache.serialize())

        return learnt

    def contexts(self, engine: Any) -> Callable[[], Any]:
        """What makes contexts without memory of their own."""
        user = self._package.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self.for_rtx:
            return lambda: engine.create_execution_context(user)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(user)
        # Kernels for a shape are compiled before it first runs, not beside it: a captured graph keeps what it has. What
        # one context has compiled the others take.
        config.dynamic_shapes_kernel_specialization_strategy = (
            self._package.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        config.set_runtime_cache(config.create_runtime_cache())
        return lambda: engine.create_execution_context(config)


def _package(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):  # OSError: one of its libraries is missing
        return None

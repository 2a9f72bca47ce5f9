"""The least time that a step could take: its arithmetic and its memory traffic, against what this machine reaches.

peaks = measure("int8", threads=2)
work = step_work(bundle.info, chunk_frames=2, rows=16, precision="int8")
work.seconds(peaks)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nemostream.models.info import ModelInfo

SIZE = 1024
COPY_BYTES = 128 << 20
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Peaks:
    """Operations a second of a square product in fp32 and int8, and bytes a second of a copy (read and written)."""

    fp32: float
    int8: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Work:
    """Of one step. `products`: operations in products with constant matrices, which int8 quantizes; `other`: all other
    ones, in fp32; `bytes`: weights once, the rows' state once, what is new of it once."""

    products: float
    other: float
    bytes: float
    precision: str

    def seconds(self, peaks: Peaks) -> float:
        """The longer of arithmetic and memory, as if they overlapped wholly."""
        product_peak = peaks.int8 if self.precision == "int8" else peaks.fp32
        return max(self.products / product_peak + self.other / peaks.fp32, self.bytes / peaks.bytes)


def step_work(info: ModelInfo, chunk_frames: int, rows: int, precision: str) -> Work:
    """A multiplication and an addition are two operations. Elementwise work is not counted; of decoding, one look at
    each frame."""
    encoder, t = info.encoder, chunk_frames
    d, layers, ch, left = encoder.d_model, encoder.n_layers, encoder.subsampling_channels, encoder.left_context
    first = info.mel.n_mels // 2 + 1
    second = first // 2 + 1
    third = second // 2 + 1
    front = 18 * ch * (4 * t * first + 2 * t * second + t * third)
    front += 2 * ch * ch * (2 * t * second + t * third)
    reach = left + 2 * max(info.chunk_frames) - 1  # columns of the position tables
    attention = 2 * t * d * (reach + 2 * (left + t)) + 2 * t * d * encoder.conv_kernel
    # Two feed-forwards of four widths, q k v, attention's and the convolution's projections.
    matrices = (16 + 4 + 3) * d * d * layers + ch * third * d
    head = 0
    if info.transducer:
        head = info.transducer.joint_hidden * (d + info.vocab_size + 1)
    state = 2 * layers * left * d + layers * (encoder.conv_kernel - 1) * d + ch * (first + second)
    fresh = 2 * layers * t * d + layers * (encoder.conv_kernel - 1) * d + ch * (first + second)
    weight_bytes = matrices * (1 if precision == "int8" else 4) + 4 * (ch * ch * 2 + layers * reach * d + head)
    return Work(
        products=rows * 2.0 * t * matrices,
        other=rows * (front + layers * attention + 2.0 * t * head),
        bytes=weight_bytes + rows * 4.0 * (state + fresh),
        precision=precision,
    )


def measure(threads: int | None) -> Peaks:
    """The best of ROUNDS, as onnxruntime multiplies and numpy copies."""
    from onnx import TensorProto, helper

    from nemostream.ort import onnxruntime

    def product(operator: str, kinds: tuple[int, int, int], dtypes: tuple[type, type]) -> float:
        inputs = [helper.make_tensor_value_info(n, k, [SIZE, SIZE]) for n, k in zip("ab", kinds[:2], strict=True)]
        output = helper.make_tensor_value_info("y", kinds[2], [SIZE, SIZE])
        graph = helper.make_graph([helper.make_node(operator, ["a", "b"], ["y"])], "product", inputs, [output])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds: dict[str, npt.NDArray[Any]] = {
            name: np.ones((SIZE, SIZE), dtype) for name, dtype in zip("ab", dtypes, strict=True)
        }
        return 2.0 * SIZE**3 / _best(lambda: session.run(None, feeds))

    source = np.ones(COPY_BYTES // 4, np.float32)
    target = np.empty_like(source)
    return Peaks(
        fp32=product("MatMul", (TensorProto.FLOAT,) * 3, (np.float32, np.float32)),
        int8=product("MatMulInteger", (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32), (np.uint8, np.int8)),
        bytes=2.0 * COPY_BYTES / _best(lambda: np.copyto(target, source)),
    )


def _best(action: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)

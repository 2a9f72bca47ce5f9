"""int8 with a scale per row: every MatMul with a constant matrix becomes a product of integers.

onnxruntime's own dynamic quantisation takes one scale over the whole batch, so that a loud neighbour changes your text.
Here each row of the left side (one frame of one stream) has its own scale, and each column of the constant its own.

The constant is rounded to -64..64, the left side to 1..255: x86 CPUs without VNNI add two products in 16 bits, where
2 * 255 * 127 saturates (onnxruntime's reduce_range is about the same) and 2 * 255 * 64 does not. So the numbers are the
same on every CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

WEIGHT_LEVELS = 64

FUSED = "MatMulIntegerToFloat"
"""What onnxruntime's optimizer makes of a product with one joined scale. It takes a scalar: every row but the first
would get the wrong one. An optimized graph must never hold it (convert.py looks, and so does a test)."""


def quantize_rows(model: onnx.ModelProto) -> int:
    """Rewrite `model` in place; returns the number of matrices that became int8."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    fresh: dict[str, npt.NDArray[Any]] = {
        "int8.share": np.array(1 / 127, np.float32),
        "int8.least": np.array(1e-8, np.float32),  # a row of zeros divides by this
        "int8.middle": np.array(128, np.float32),
        "int8.zero": np.array(128, np.uint8),
    }
    nodes: list[onnx.NodeProto] = []
    rounded: set[str] = set()
    replaced: set[str] = set()
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or len(weight.dims) != 2:
            nodes.append(node)
            continue
        x, y, w = node.input[0], node.output[0], weight.name
        matrix = numpy_helper.to_array(weight)
        scale = (np.abs(matrix).max(0) / WEIGHT_LEVELS + 1e-12).astype(np.float32)
        fresh[f"{w}.int8"] = np.clip(np.round(matrix / scale), -WEIGHT_LEVELS, WEIGHT_LEVELS).astype(np.int8)
        fresh[f"{w}.scale"] = scale
        replaced.add(w)
        if x not in rounded:  # q, k and v or two heads may share a left side
            rounded.add(x)
            nodes += [
                helper.make_node("Abs", [x], [f"{x}.abs"]),
                helper.make_node("ReduceMax", [f"{x}.abs"], [f"{x}.max"], axes=[-1], keepdims=1),
                helper.make_node("Mul", [f"{x}.max", "int8.share"], [f"{x}.loud"]),
                helper.make_node("Max", [f"{x}.loud", "int8.least"], [f"{x}.scale"]),
                helper.make_node("Div", [x, f"{x}.scale"], [f"{x}.unit"]),
                helper.make_node("Round", [f"{x}.unit"], [f"{x}.round"]),
                helper.make_node("Add", [f"{x}.round", "int8.middle"], [f"{x}.shift"]),
                helper.make_node("Cast", [f"{x}.shift"], [f"{x}.int8"], to=TensorProto.UINT8),
            ]
        # The two scales one after the other, the column's first: a product of both would be fused wrongly (see FUSED).
        nodes += [
            helper.make_node("MatMulInteger", [f"{x}.int8", f"{w}.int8", "int8.zero"], [f"{y}.sum"]),
            helper.make_node("Cast", [f"{y}.sum"], [f"{y}.float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{y}.float", f"{w}.scale"], [f"{y}.column"]),
            helper.make_node("Mul", [f"{y}.column", f"{x}.scale"], [y]),
        ]
    kept = [item for item in graph.initializer if item.name not in replaced]
    del graph.initializer[:]
    graph.initializer.extend(kept + [numpy_helper.from_array(value, name) for name, value in fresh.items()])
    del graph.node[:]
    graph.node.extend(nodes)
    return len(replaced)

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
"""The product itself. onnxruntime's optimizer makes one too, of a product of integers and a row's scale behind it, and
takes that scale for a scalar: every row but the first would get the wrong one. So the scale of the left side is always
ONE here and the row's own is multiplied afterwards; convert.py and a test look for any other in optimized graphs."""
ONE = "int8.one"


def quantize_rows(model: onnx.ModelProto) -> int:
    """Rewrite `model` in place; returns the number of matrices that became int8. Their left sides must be matrices too
    (step.py keeps all frames of all chunks in one)."""
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    fresh: dict[str, npt.NDArray[Any]] = {
        ONE: np.array(1, np.float32),
        "int8.share": np.array(1 / 127, np.float32),
        "int8.least": np.array(1e-8, np.float32),  # a row of zeros divides by this
        "int8.zero": np.array(128, np.uint8),
        "int8.last": np.array([-1], np.int64),
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
        if x not in rounded:  # two products may share a left side
            nodes += _round_rows(x, zeros=not rounded)
            rounded.add(x)
        product = [f"{x}.int8", f"{w}.int8", ONE, f"{w}.scale", "int8.zero"]
        nodes += [
            helper.make_node(FUSED, product, [f"{y}.column"], domain="com.microsoft"),
            helper.make_node("Mul", [f"{y}.column", f"{x}.scale"], [y]),
        ]
    kept = [item for item in graph.initializer if item.name not in replaced]
    del graph.initializer[:]
    graph.initializer.extend(kept + [numpy_helper.from_array(value, name) for name, value in fresh.items()])
    del graph.node[:]
    graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return len(replaced)


def _round_rows(x: str, zeros: bool) -> list[onnx.NodeProto]:
    """Nodes that make of `x` (N, K) its uint8 and the scale of each row, (N, 1); with `zeros` the (N,) zero points too,
    which all products of a graph share."""
    from onnx import TensorProto, helper

    middle = helper.make_tensor("value", TensorProto.UINT8, [1], [128])
    shared = [
        helper.make_node("Shape", [f"{x}.scales"], ["int8.rows"]),
        helper.make_node("ConstantOfShape", ["int8.rows"], ["int8.zeros"], value=middle),
    ]
    return [
        helper.make_node("Abs", [x], [f"{x}.abs"]),
        helper.make_node("ReduceMax", [f"{x}.abs"], [f"{x}.max"], axes=[-1], keepdims=0),
        helper.make_node("Mul", [f"{x}.max", "int8.share"], [f"{x}.loud"]),
        helper.make_node("Max", [f"{x}.loud", "int8.least"], [f"{x}.scales"]),
        *(shared if zeros else []),
        # Divides, rounds, shifts and cuts in one pass.
        helper.make_node("QuantizeLinear", [x, f"{x}.scales", "int8.zeros"], [f"{x}.int8"], axis=0),
        helper.make_node("Unsqueeze", [f"{x}.scales", "int8.last"], [f"{x}.scale"]),
    ]

"""The toy as a sherpa-onnx folder: NeMo's graphs (tests/data/sherpa) with the weights of toy.nemo put back.

folder = write_sherpa(tmp_path, toy_nemo, int8=True)
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

PARTS = ("encoder", "decoder", "joiner")
SKELETON = Path(__file__).parent / "data" / "sherpa"
POSITIONS, WIDTH = 5000, 128
Arrays = dict[str, np.ndarray[Any, Any]]


def forms(state: Arrays) -> Arrays:
    """All that large tensors of the export can be: those of a checkpoint, as they are or turned, the LSTM's gates in
    ONNX's order, the biases of each layer behind one another, and the encoder's positions."""
    out: Arrays = {"positions": _positions()}
    for name, value in state.items():
        out[name] = value
        if value.ndim == 2:
            out[f"{name} turned"] = value.T
        if ".lstm." in name:
            i, f, g, o = np.split(value, 4)
            out[f"{name} gates"] = np.concatenate([i, o, f, g])
    for name in [n for n in out if ".lstm.bias_ih" in n and n.endswith("gates")]:
        out[f"{name} both"] = np.concatenate([out[name], out[name.replace("bias_ih", "bias_hh")]])
    return out


def tensors(model: Any) -> list[Any]:
    """All that a graph holds."""
    constants = (node for node in model.graph.node if node.op_type == "Constant")
    return [*model.graph.initializer, *(a.t for node in constants for a in node.attribute if a.HasField("t"))]


def write_sherpa(folder: Path, toy: Path, int8: bool = False) -> Path:
    """fp32, and with `int8` also what sherpa-onnx's scripts make of it."""
    import onnx

    from nemostream.models.checkpoint import read_checkpoint

    known = forms({name: tensor.numpy() for name, tensor in read_checkpoint(toy).state.items()})
    for part in PARTS:
        graph = onnx.load(str(SKELETON / f"{part}.onnx"))
        for tensor in tensors(graph):
            if tensor.doc_string:
                form = np.ascontiguousarray(known[tensor.doc_string], np.float32)
                tensor.raw_data = form.reshape(tuple(tensor.dims)).tobytes()
                tensor.doc_string = ""
        onnx.save(graph, str(folder / f"{part}.onnx"))
        if int8:
            quantize(folder, part)
    shutil.copy(SKELETON / "tokens.txt", folder)
    return folder


def quantize(folder: Path, part: str) -> None:
    """As sherpa-onnx's export scripts do: every operator that can be, with one scale for each tensor."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns of every tensor that it leaves as it is
    try:
        quantize_dynamic(folder / f"{part}.onnx", folder / f"{part}.int8.onnx", weight_type=QuantType.QUInt8)
    finally:
        root.setLevel(level)


def _positions() -> np.ndarray[Any, Any]:
    """NeMo's RelPositionalEncoding: sines and cosines of 4999 down to -4999."""
    places = np.arange(POSITIONS - 1, -POSITIONS, -1, dtype=np.float32)[:, None]
    angles = places * np.exp(np.arange(0, WIDTH, 2, dtype=np.float32) * np.float32(-np.log(10000.0) / WIDTH))
    return np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(len(places), WIDTH).astype(np.float32)

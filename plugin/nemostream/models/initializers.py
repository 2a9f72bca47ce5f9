"""The constants of an ONNX graph by name, without the package onnx: weights for a backend that needs no graph.

    weights = read_initializers(Path("encoder.fp32.onnx"))       # {"layers.0.feed1.0.weight": (512, 2048) float32, ...}
    weights = encoder_weights(bundle)                             # of the encoder, whatever precision the bundle holds

convert.py exports the step with its parameters' own names, so the fp32 graph is its state dict, and no bundle has to
hold the weights twice. An int8 graph holds matrices as int8 and a scale for each column (quantize.py).

Numbers of fields and types: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; encoding:
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nemostream.errors import BundleError

if TYPE_CHECKING:
    from nemostream.encoders import Floats
    from nemostream.models.bundle import Bundle
    from nemostream.models.info import ModelInfo

_GRAPH, _INITIALIZER = 7, 5  # of ModelProto and GraphProto
_DIMS, _TYPE, _NAME, _RAW, _EXTERNAL, _ENTRY_KEY, _ENTRY_VALUE = 1, 2, 8, 9, 13, 1, 2  # of TensorProto and its entries
_FLOAT, _UINT8, _INT8, _INT64 = np.dtype("<f4"), np.dtype("u1"), np.dtype("i1"), np.dtype("<i8")
_DTYPES: dict[int, np.dtype[Any]] = {1: _FLOAT, 2: _UINT8, 3: _INT8, 7: _INT64}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_PARTS = ("front", "layers", "prompt")
"""Of StreamingStep; what has other names is the graph's own."""

Field = tuple[int, int | memoryview]


def encoder_weights(bundle: Bundle) -> dict[str, Floats]:
    """The state dict of the bundle's streaming step (models/step.py), float32: as it was trained, or as int8 left it.

    Raises:
        BundleError: the graph cannot be read.
    """
    found = read_initializers(bundle.encoder(precision_of(bundle.info)))
    weights: dict[str, Floats] = {}
    for name, array in found.items():
        if name.endswith(".int8"):
            whole = name.removesuffix(".int8")
            weights[whole] = array.astype(np.float32) * found[f"{whole}.scale"]
        elif (
            array.dtype == np.float32
            and not name.startswith("int8.")
            and f"{name.removesuffix('.scale')}.int8" not in found
        ):
            weights[name] = array
    return weights


def precision_of(info: ModelInfo) -> str:
    """The graph that `encoder_weights` reads."""
    return "fp32" if "fp32" in info.precisions else info.precisions[0]


def read_initializers(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The constants of the graph at `path`; large ones are read from the disk when they are used.

    Raises:
        BundleError: it is no ONNX graph, or a tensor is of a kind that convert.py never writes.
    """
    try:
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        tensors = [
            _tensor(tensor, path.parent)
            for field, graph in _fields(content)
            if field == _GRAPH and isinstance(graph, memoryview)
            for inner, tensor in _fields(graph)
            if inner == _INITIALIZER and isinstance(tensor, memoryview)
        ]
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise BundleError(
            f"{path}: the weights in this graph cannot be read ({error}); convert the model again."
        ) from error
    return dict(tensors)


def _tensor(message: memoryview, folder: Path) -> tuple[str, npt.NDArray[Any]]:
    dims: list[int] = []
    name, kind, raw = "", 0, memoryview(b"")
    external: dict[str, str] = {}
    for field, value in _fields(message):
        if field == _DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif field == _TYPE and isinstance(value, int):
            kind = value
        elif field == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif field == _RAW and isinstance(value, memoryview):
            raw = value
        elif field == _EXTERNAL and isinstance(value, memoryview):
            entry = {key: bytes(part).decode() for key, part in _fields(value) if isinstance(part, memoryview)}
            external[entry[_ENTRY_KEY]] = entry[_ENTRY_VALUE]
    if external:
        file = folder / Path(external["location"]).name  # beside the graph, wherever it says
        offset, shape = int(external.get("offset", 0)), tuple(dims)
        return name, np.memmap(file, _DTYPES[kind], "r", offset, shape) if dims else np.zeros((), _DTYPES[kind])
    array = np.frombuffer(raw, _DTYPES[kind])
    return name, array.reshape(dims)


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message: numbers and what they hold."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {wire} at byte {at}")
        if at + length > len(message):
            raise ValueError(f"a field ends at byte {at + length} of {len(message)}")
        yield field, message[at : at + length]
        at += length


def _varints(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7

"""int8 for sherpa-onnx, beside the fp32 graphs of a folder.

`.int8` is what its own scripts make: every operator that can be, QUInt8. `.products` are matrix products alone, signed
and of 7 bits, so that an x86 without VNNI does not saturate.
"""

from __future__ import annotations

import logging
from pathlib import Path

PARTS = ("encoder", "decoder", "joiner")


def quantize(folder: Path) -> None:
    """Add both to `folder`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It warns of every tensor that it leaves as it is.
    logging.getLogger().setLevel(logging.ERROR)
    for part in PARTS:
        fp32 = folder / f"{part}.onnx"
        quantize_dynamic(fp32, folder / f"{part}.int8.onnx", weight_type=QuantType.QUInt8)
        quantize_dynamic(
            fp32,
            folder / f"{part}.products.onnx",
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            reduce_range=True,
        )

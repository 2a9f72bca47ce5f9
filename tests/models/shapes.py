"""The streaming step in a published model's shape, with whatever weights torch begins with: for graphs, not for words.

python -m tests.models.shapes nemotron-0.6b bf16 2 1024        # builds a plan of it for SM89; prints what that took
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from bench.gpu.models import config_of
from bench.random_model import SHAPES
from nemostream.encoders.resident import DTYPES
from nemostream.encoders.trt import at_once, find, ranges
from nemostream.models.conformer import ConformerEncoder
from nemostream.models.export import Sizes, export_step
from nemostream.models.step import StreamingStep

FLUSH_FRAMES = 4


def build(shape: str, precision: str, frames: int, most: int) -> dict[str, float]:
    """A plan for TensorRT for RTX on SM89: its megabytes, the seconds of export and build, the gigabytes they took."""
    config = config_of(SHAPES[shape])
    encoder = config.encoder
    columns = encoder.left_context + -(-FLUSH_FRAMES // frames) * frames
    with tempfile.TemporaryDirectory() as scratch:
        graph, began = Path(scratch) / "step.onnx", time.monotonic()
        step = StreamingStep(ConformerEncoder(encoder)).eval().requires_grad_(False).reduce(DTYPES[precision])
        export_step(step, encoder, config.mel, graph, Sizes(frames, columns))
        del step
        exported = time.monotonic()
        plan, _ = find("sm89").build(graph, ranges(at_once(frames, most)), b"", lambda far: None)
    return {
        "plan_mb": round(len(plan) / 1e6, 1),
        "export_s": round(exported - began, 1),
        "build_s": round(time.monotonic() - exported, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }


if __name__ == "__main__":
    print(json.dumps(build(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))

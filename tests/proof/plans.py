"""TensorRT's builder takes the graphs of the published shapes: TensorRT for RTX builds plans of them for SM89, without
a GPU, in both half precisions, at every chunk size, with all profiles. That they run is not proven here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import tensorrt_rtx

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    *("plugin/nemostream/encoders/trt.py", "plugin/nemostream/models/export.py", "plugin/nemostream/models/step.py"),
    *("plugin/nemostream/models/conformer.py", "tests/models/shapes.py"),
]
MOST = 4096
WANTED = [("fastconformer-114m", p, t) for p in ("bf16", "fp16") for t in (1, 2, 7, 14)]
WANTED += [("nemotron-0.6b", "bf16", t) for t in (1, 2, 7, 14)] + [("nemotron-0.6b", "fp16", 2)]


def run() -> dict[str, object]:
    """Each plan in a process of its own, for its memory."""
    found: dict[str, object] = {"package": f"tensorrt_rtx {tensorrt_rtx.__version__}"}
    for shape, precision, frames in WANTED:
        command = [sys.executable, "-m", "tests.models.shapes", shape, precision, str(frames), str(MOST)]
        result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        name = f"{shape} {precision} {frames * 80} ms"
        found[name] = json.loads(result.stdout)
        print(f"  {name}: {found[name]}", flush=True)
    return found

"""Random models of the published sizes, made by NeMo itself: converted within 8 GB, int8 a quarter of fp32, and NeMo's
tokens to the last one. What each takes in memory is what docs/models.md says.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nemostream.model import Model
from tests.clips import path as clip_path
from tests.engine.test_golden import compare_kind
from tests.proof.nemo_parity import nemo_python
from tests.random_model import FULL_SIZE

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ["plugin/nemostream/*.py", "plugin/nemostream/encoders/*.py", "plugin/nemostream/models/*.py"]
CONVERSION_LIMIT_GB = 8.0
MB, GB = 1e6, 1e9


def run() -> dict[str, object]:
    """Each size: NeMo's checkpoint, our bundle, the tokens of both, and what memory it takes."""
    python = nemo_python()
    result: dict[str, object] = {}
    for name in FULL_SIZE:
        # Beside the other caches: /tmp may be small, or memory.
        with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as scratch:
            result[name] = _one(name, Path(scratch), python)
            print(f"  {name}: {result[name]}", flush=True)
    return result


def _one(name: str, scratch: Path, python: str) -> dict[str, object]:
    subprocess.run([python, "tests/golden/make_golden.py", scratch, "0", name], cwd=ROOT, check=True)
    nemo, bundle = scratch / f"{name}.nemo", scratch / "bundle"
    checkpoint = nemo.stat().st_size
    converting = peak("-m", "nemostream", "convert", str(nemo), str(bundle))
    assert converting < CONVERSION_LIMIT_GB * GB, f"converting took {converting / GB:.1f} GB"
    nemo.unlink()
    sizes = {p: sum(f.stat().st_size for f in bundle.glob(f"encoder.{p}.onnx*")) for p in ("fp32", "int8")}
    assert sizes["int8"] < 0.27 * sizes["fp32"], sizes
    clip = str(clip_path("monday"))
    running = {p: peak("-m", "nemostream", "transcribe", "--model", str(bundle), "--precision", p, clip) for p in sizes}
    model = Model.load(bundle, "fp32", None)
    with np.load(scratch / f"golden_{name}.npz") as golden:
        tokens = compare_kind(model, dict(golden))
    return {
        "checkpoint_mb": round(checkpoint / MB),
        "conversion_peak_gb": round(converting / GB, 2),
        "encoder_mb": {p: round(size / MB) for p, size in sizes.items()},
        "one_stream_peak_mb": {p: round(size / MB) for p, size in running.items()},
        "row_mb": round(_row_bytes(model) / MB, 1),
        "tokens_equal": tokens,
    }


def peak(*arguments: str) -> int:
    """The largest resident size of that program, in bytes."""
    # Measured by a small process: of a large one's child it would be no less than its own.
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", measure, sys.executable, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024


def _row_bytes(model: Model) -> int:
    """What the encoder keeps of one stream, at its default chunk."""
    frames = model.bundle.info.default_chunk_frames
    row = model.backend.rows(frames, 1, model.spare_frames(frames)).export(0)
    return sum(array.nbytes for array in row.values())

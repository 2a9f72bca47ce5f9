"""The toy as a sherpa-onnx folder, without its weights. Runs where nemo_toolkit[asr] 3.0.0 is installed:

    python tests/golden/make_sherpa.py [OUT]        # default: tests/data/sherpa

What is written are NeMo's own graphs at 160 ms with sherpa-onnx's metadata (bench/peers/export_nemo.py), 0.25 MB: every
large tensor is left empty and names in its doc_string the tensor of toy.nemo that belongs there (tests/sherpa.py puts
them back).
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
from pathlib import Path

import nemo.collections.asr as nemo_asr  # type: ignore[import-not-found]
import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugin")]

from bench.peers.export_nemo import main as export  # noqa: E402
from tests.sherpa import PARTS, forms, tensors  # noqa: E402

CHUNK_MS = 160
LARGE = 64


def main(out: Path) -> None:
    toy = ROOT / "tests" / "data" / "toy.nemo"
    model = nemo_asr.models.ASRModel.restore_from(str(toy), map_location="cpu")
    known = forms({name: tensor.numpy() for name, tensor in model.state_dict().items() if tensor.ndim})
    with tempfile.TemporaryDirectory() as work:
        export(toy, Path(work), [CHUNK_MS])
        folder = Path(work) / str(CHUNK_MS)
        out.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            graph = onnx.load(str(folder / f"{part}.onnx"))
            for tensor in tensors(graph):
                if math.prod(tensor.dims) > LARGE:
                    tensor.doc_string = name_of(onnx.numpy_helper.to_array(tensor), known)
                    tensor.ClearField("raw_data")
            onnx.save(graph, str(out / f"{part}.onnx"))
        shutil.copy(folder / "tokens.txt", out)


def name_of(array: np.ndarray, known: dict[str, np.ndarray]) -> str:
    """The tensor that it is, within the rounding of a sine."""
    for name, form in known.items():
        if form.size == array.size and np.allclose(form.ravel(), array.ravel(), rtol=0, atol=1e-3):
            return name
    raise ValueError(f"a tensor of {array.shape} is none of the checkpoint's")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "data" / "sherpa")

"""What a model takes in memory, told from its files before it is loaded.

model_bytes(Path("bundles/toy"), "int8")
"""

from __future__ import annotations

from pathlib import Path

from nemostream.models import sherpa
from nemostream.models.bundle import WEIGHTS, encoder_file

GRAPH_BYTES, PER_FILE_BYTE = 12 << 20, 1.25
"""Measured growth of a process: 20 MB for files of 6.6 MB (the embedded model, int8), 11 MB for 5.5 MB (the tests' toy,
fp32), 2.9 GB for 2.34 GB (a model of 0.6 G, fp32). The rows of its streams come on top."""
PER_SHERPA_BYTE = 1.6
"""NeMo's own graphs take more: 740 MB for 480 MB (114 M, fp32), 190 MB for 137 MB (the same, int8)."""


def model_bytes(path: Path, precision: str | None) -> int:
    """Bytes that the bundle at `path` will take, by estimate; what is missing there counts nothing: loading says so.

    Args:
        precision: None: int8 if the bundle holds it, as Model.load chooses.

    Raises:
        BundleError: a folder of sherpa-onnx is not complete, or lacks that precision.
    """
    foreign = sherpa.is_sherpa(path)
    files = sherpa.find(path, precision).files if foreign else _files(path, precision)
    per_byte = PER_SHERPA_BYTE if foreign else PER_FILE_BYTE
    return GRAPH_BYTES + int(per_byte * sum(f.stat().st_size for f in files if f.is_file()))


def _files(path: Path, precision: str | None) -> list[Path]:
    """Of a bundle."""
    encoders = [path / encoder_file(p) for p in ((precision,) if precision else ("int8", "fp32"))]
    return [*[e for e in encoders if e.is_file()][:1], path / WEIGHTS]

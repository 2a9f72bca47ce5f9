"""What the sides need of a .nemo, made once and kept under .cache/peers/exports, named after what it was made from."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.peers.quantize import quantize
from nemostream.models.convert import convert

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "peers"
EXPORTERS = tuple(Path(__file__).with_name(name) for name in ("export_nemo.py", "quantize.py"))
CHUNKS_MS = (80, 160, 560, 1120)

Say = Callable[[str], None]


class Missing(Exception):
    """Something that the comparison needs is not there; the message says how to get it."""


@dataclass(frozen=True)
class Files:
    """One model as each side takes it.

    Attributes:
        nemo: the checkpoint.
        bundle: of this project, fp32 and int8.
        exports: of sherpa-onnx, a folder for each chunk size in ms.
    """

    nemo: Path
    bundle: Path
    exports: Path


@dataclass(frozen=True)
class Pythons:
    """The interpreter of each side's environment, by its name."""

    ours: str
    sherpa: str
    nemo: str


def pythons(say: Say) -> Pythons:
    """sherpa-onnx gets an environment of its own here; NeMo's (6 GB) is the one that `make proof` makes.

    Raises:
        Missing: there is no NeMo, or pip failed.
    """
    nemo = os.environ.get("NEMO_PYTHON") or str(ROOT / ".cache" / "nemo" / "bin" / "python")
    found = "from importlib.metadata import version; version('nemo-toolkit')"
    if not Path(nemo).exists() or subprocess.run([nemo, "-c", found], capture_output=True).returncode:
        raise Missing(f"{nemo} has no NeMo; run make proof once, or name a Python that has it in NEMO_PYTHON.")
    home = CACHE / "bin" / "python"
    if not home.exists():
        say("installing sherpa-onnx into .cache/peers")
        _run([sys.executable, "-m", "venv", str(CACHE)], "Python can make no virtual environment")
        _run([str(home), "-m", "pip", "install", "--quiet", "sherpa-onnx", "numpy"], "pip cannot install sherpa-onnx")
    return Pythons(sys.executable, str(home), nemo)


def prepare(nemo: Path, python: Pythons, say: Say) -> Files:
    """Convert and export, unless it was done before.

    Raises:
        Missing: an export failed.
    """
    folder = CACHE / "exports" / _digest([nemo])
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / f"bundle-{_digest((ROOT / 'plugin' / 'nemostream' / 'models').glob('*.py'))}"
    if not bundle.is_dir():
        say(f"converting {nemo.name}")
        convert(nemo, bundle)
    exports = folder / f"sherpa-onnx-{_digest(EXPORTERS)}"
    if not exports.is_dir():
        say(f"exporting {nemo.name} for sherpa-onnx")
        work = Path(tempfile.mkdtemp(dir=folder))
        try:
            command = [python.nemo, "-m", "bench.peers.export_nemo", str(nemo), str(work), *map(str, CHUNKS_MS)]
            _run(command, "NeMo cannot export the model")
            for chunk_ms in CHUNKS_MS:
                quantize(work / str(chunk_ms))
            work.rename(exports)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return Files(nemo, bundle, exports)


def _run(command: list[str], trouble: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise Missing(f"{trouble}: {last[0]}")


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]

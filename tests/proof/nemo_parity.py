"""Fresh utterances through NeMo itself and through the engine: the same tokens at the same frames.

NeMo 3.0.0 gets an environment of its own (.cache/nemo, 6 GB, once); NEMO_PYTHON names one that exists already.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nemostream.models.convert import convert
from tests.conftest import CACHE, DATA, converted
from tests.engine.driver import load
from tests.engine.test_golden import compare, compare_kind
from tests.golden.make_golden import UTTERANCES
from tests.random_model import KINDS, write_random_nemo

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ["plugin/nemostream/*.py", "plugin/nemostream/encoders/*.py", "plugin/nemostream/models/*.py"]
FIRST_SEEDS = (10_000, 20_000, 30_000)


def run() -> dict[str, object]:
    """Every chunk size and decoder of the toy and the random model, UTTERANCES utterances for each first seed."""
    python = nemo_python()
    random = CACHE / "proof-random.nemo"
    CACHE.mkdir(parents=True, exist_ok=True)
    write_random_nemo(random, DATA / "toy.nemo")
    models = {"toy": load(converted(DATA / "toy.nemo").path), "random": load(converted(random).path)}
    compared = tokens = 0
    for seed in FIRST_SEEDS:
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([python, "tests/golden/make_golden.py", out, str(seed)], cwd=ROOT, check=True)
            for name, model in models.items():
                golden = np.load(Path(out) / f"golden_{name}.npz")
                for lookahead in golden["lookaheads"].tolist():
                    for decoder in ("rnnt", "ctc"):
                        tokens += compare(model, golden, decoder, lookahead, seed)
                        compared += UTTERANCES
                        print(f"  {name}, lookahead {lookahead}, {decoder}: equal", flush=True)
    return {"utterances": compared, "tokens_equal": tokens, "nemo": "3.0.0", "architectures": architectures(python)}


def architectures(python: str) -> dict[str, int]:
    """The tokens of every other architecture, from checkpoints that NeMo itself has saved."""
    names = [name for name in KINDS if name != "hybrid"]
    found: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=CACHE) as out:
        subprocess.run([python, "tests/golden/make_golden.py", out, str(FIRST_SEEDS[0]), *names], cwd=ROOT, check=True)
        for name in names:
            convert(Path(out) / f"{name}.nemo", Path(out) / name, precisions=("fp32",))
            with np.load(Path(out) / f"golden_{name}.npz") as golden:
                found[name] = compare_kind(load(Path(out) / name), dict(golden), FIRST_SEEDS[0])
            print(f"  {name}: {found[name]} tokens equal", flush=True)
    return found


def nemo_python() -> str:
    """A Python with NeMo in it."""
    named = os.environ.get("NEMO_PYTHON")
    if named:
        return named
    home = ROOT / ".cache" / "nemo"
    if not (home / "ready").exists():
        print("  installing NeMo into .cache/nemo (6 GB, once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run(
            [home / "bin" / "pip", "install", "--quiet", "nemo_toolkit[asr]==3.0.0", "torch==2.13.0"], check=True
        )
        (home / "ready").touch()
    return str(home / "bin" / "python")

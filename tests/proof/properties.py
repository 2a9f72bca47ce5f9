"""The property tests of the engine, with many times the examples of `make test`."""

from __future__ import annotations

import os
import re
import subprocess
import sys

SOURCES = ["plugin/nemostream/*.py", "plugin/nemostream/encoders/*.py", "tests/engine/*.py", "tests/test_*.py"]
FACTOR = 10


def run() -> dict[str, object]:
    environment = {**os.environ, "PROOF_FACTOR": str(FACTOR)}
    tests = [
        "tests/engine/test_properties.py",
        "tests/engine/test_vad.py",
        "tests/test_reconcile.py",
        "tests/test_mel.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests], env=environment, capture_output=True, text=True, check=False
    )
    print(done.stdout[-2000:])
    assert done.returncode == 0, "a property does not hold"
    passed = re.search(r"(\d+) passed", done.stdout)
    return {"tests": int(passed[1]) if passed else 0, "examples": f"{FACTOR} times those of make test"}

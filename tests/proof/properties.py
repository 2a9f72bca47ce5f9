"""The property tests of the engine, with many times the examples of `make test`."""

from __future__ import annotations

import os
import re
import subprocess
import sys

TESTS = [
    *("tests/engine/test_properties.py", "tests/engine/test_vad.py", "tests/engine/test_drift.py"),
    *("tests/engine/test_admission.py", "tests/engine/test_parking.py", "tests/engine/test_kept_streams.py"),
    *("tests/remote/test_ledger.py", "tests/remote/test_wire.py"),
    *("tests/test_reconcile.py", "tests/test_mel.py"),
]
SOURCES = ["plugin/nemostream/*.py", "plugin/nemostream/encoders/*.py", *TESTS]
FACTOR = 10


def run() -> dict[str, object]:
    environment = {**os.environ, "PROOF_FACTOR": str(FACTOR)}
    command = [sys.executable, "-m", "pytest", *TESTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-2000:])
    assert done.returncode == 0, "a property does not hold"
    passed = re.search(r"(\d+) passed", done.stdout)
    return {"tests": int(passed[1]) if passed else 0, "examples": f"{FACTOR} times those of make test"}

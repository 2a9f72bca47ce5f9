"""How many examples a property is tried with: few in `make test`, many times as many in `make proof`."""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("PROOF_FACTOR", "1"))


def examples(few: int) -> int:
    return few * FACTOR

"""How many examples a property is tried with: few in `make test`, many times as many in `make proof`."""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("PROOF_FACTOR", "1"))


def examples(few: int, many: int = 0) -> int:
    """`few`, or with PROOF_FACTOR set that many times `many` (as many as `few` if it is 0)."""
    return few if FACTOR == 1 else FACTOR * (many or few)

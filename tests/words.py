"""How far two texts are apart."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein


def changes(reference: Sequence[str], got: Sequence[str]) -> tuple[int, int]:
    """Words of the reference that are missing from `got`, and words in `got` that are not in the reference; a
    substituted word counts as both."""
    operations = Levenshtein.editops(reference, got)
    lost = sum(o.tag in ("delete", "replace") for o in operations)
    return lost, sum(o.tag in ("insert", "replace") for o in operations)

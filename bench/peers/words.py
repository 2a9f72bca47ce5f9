"""How far texts differ, in words."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer

from train.heldout import normalise


def error_rate(wanted: Sequence[str], found: Sequence[str]) -> float:
    """Words to insert, leave out or replace for each word that is wanted, over all texts together; 0 if none is wanted
    and none found, and 1 if some are found then."""
    wanted, found = [normalise(text) for text in wanted], [normalise(text) for text in found]
    if not any(wanted):
        return float(any(found))
    return round(float(jiwer.wer(list(wanted), list(found))), 4)

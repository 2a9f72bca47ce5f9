"""Whether there is time for one more live stream: arithmetic over what steps cost, without a clock of its own.

check_time(loads, joining=load, now=now)     # raises EngineFull

Rows (memory) are counted apart (seating.py). Muted and silent streams have a row but cost no time; batch streams only
take what live ones leave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nemostream.cost import StepCost
from nemostream.errors import EngineFull
from nemostream.scheduler import CROWD_WAIT, STEP_BOUND, Load, step_bound

TIME_LIMIT = 0.8
"""The part of time that the steps of live streams may be predicted to take. The rest is for events and flushes."""
CALLS = round(1 / CROWD_WAIT)
"""Steps a chunk that a group needs at most. Small groups take more, but only while there is time: what is late runs
together."""
RETRY_AFTER = 2.0


def check_time(loads: Sequence[Load], joining: Load, now: float) -> None:
    """Nothing, if a live stream may join that group; one that would be alone always may, since it can slow nobody.

    Raises:
        EngineFull: steps would take too much of the time.
    """
    others = sum(load.expected for load in loads)
    predicted = share(loads, now, joining)
    if others and predicted > TIME_LIMIT:
        raise EngineFull(
            f"there is no time for another live stream: {others} run, and with it steps would take {predicted:.0%} of "
            f"the time (at most {TIME_LIMIT:.0%}); use a longer chunk or a faster machine, or try again later",
            RETRY_AFTER,
        )


def share(loads: Sequence[Load], now: float, joining: Load | None = None) -> float:
    """The part of time that the steps of live streams will take, with one more in `joining`. Groups of which nothing is
    known yet count as free."""
    bounds = [step_bound(loads) or math.inf, STEP_BOUND * joining.chunk_seconds if joining else math.inf]
    total = 0.0
    for load in loads:
        rows = load.expected + (load is joining)
        if rows:
            # Batches that are capped, so that no step holds up a shorter chunk, are more of them.
            capped = load.rows_within(min(bounds), rows)
            calls = max(min(rows, CALLS), math.ceil(rows / capped))
            total += (load.cost.predict(rows, calls, now) or 0.0) / load.chunk_seconds
    return total


def carries(cost: StepCost, chunk_seconds: float, most: int = 10_000) -> int:
    """Live streams of that chunk size, and no others, for which there is time; at most `most`."""
    low, high = 0, most
    while low < high:
        rows = (low + high + 1) // 2
        load = Load("", chunk_seconds, cost)
        load.live = load.expected = rows
        enough = share([load], cost.at) <= TIME_LIMIT
        low, high = (rows, high) if enough else (low, rows - 1)
    return low

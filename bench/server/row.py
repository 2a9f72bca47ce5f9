"""The figures of a row: so many streams at once, for one round.

row = row_of(outcomes, expected, alone, ...)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import jiwer
import numpy as np

from bench.peers.words import error_rate
from bench.server.client import Outcome
from nemostream_agent.protocols.errors import REFUSED
from train.heldout import normalise

LAG_MS = 100.0
BUSY = 0.9
"""A row does not count where a process of clients was this late (99th percentile), or used this part of a core."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the row cost, and what it was measured with.

    Attributes:
        client_lag_ms: 99th percentile and most, of the worst process of clients.
        client_cpu: part of a core, of the busiest one.
        cpu: cores, by name of the process: gateway, engine, or what --pid names.
        mean_batch: streams in a step of the engine; None: the server does not say.
        refused_ms: of streams that came on top, each until its refusal.
        let_in: how many of those were not refused.
    """

    client_lag_ms: tuple[float, float]
    client_cpu: float
    cpu: dict[str, float] = field(default_factory=dict)
    mean_batch: float | None = None
    refused_ms: list[float] = field(default_factory=list)
    let_in: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """Times in ms; None: there is nothing to take them of.

    Attributes:
        wer, cer: of all streams that were let in, over all their texts; what a failed stream lacks counts.
        identical: part of the streams that were let in whose text is what their track gives alone.
        first_p50, first_p99: from when the frame in which speech begins was due to the first text.
        last_p50, last_p99: from the end's being sent to the last final.
        throughput: seconds of audio of streams that came to their end, for each second from the first start to the
            last answer.
        refused: streams that were told that there is no place. They are no errors.
        errors: streams by what ended them early.
        valid: the clients kept time.
    """

    round: int
    streams: int
    wer: float | None
    cer: float | None
    identical: float | None
    first_p50: float | None
    first_p99: float | None
    last_p50: float | None
    last_p99: float | None
    throughput: float
    refused: int
    errors: dict[str, int]
    why: str
    valid: bool
    load: Load


def row_of(
    round_: int,
    outcomes: Sequence[Outcome],
    expected: Sequence[str],
    alone: Sequence[str],
    seconds: float,
    load: Load,
) -> Row:
    """`expected`, `alone`: what is said in each track, and what the server understands of it alone; stream i has track
    i modulo their number. `seconds`: of a track."""
    heard = [o for o in outcomes if o.error != REFUSED]
    whole = [o for o in heard if o.error is None]
    wanted = [expected[o.stream % len(expected)] for o in heard]
    took = max((o.over for o in whole), default=0.0) - min((o.began for o in whole), default=0.0)
    wer, cer = errors_of(wanted, [o.text for o in heard]) if any(wanted) else (None, None)
    first, last = [o.first for o in heard if o.first is not None], [o.last for o in heard if o.last is not None]
    return Row(
        round=round_,
        streams=len(outcomes),
        wer=wer,
        cer=cer,
        identical=sum(o.text == alone[o.stream % len(alone)] for o in heard) / len(heard) if heard else None,
        first_p50=_ms(first, 50),
        first_p99=_ms(first, 99),
        last_p50=_ms(last, 50),
        last_p99=_ms(last, 99),
        throughput=round(len(whole) * seconds / took, 2) if whole else 0.0,
        refused=len(outcomes) - len(heard),
        errors=dict(Counter(o.error for o in heard if o.error is not None)),
        why=next((o.why for o in outcomes if o.error), ""),
        valid=load.client_lag_ms[0] <= LAG_MS and load.client_cpu <= BUSY,
        load=load,
    )


def errors_of(wanted: Sequence[str], found: Sequence[str]) -> tuple[float, float]:
    """Words, and letters, to insert, leave out or replace for each one that is wanted, over all texts together."""
    letters = jiwer.cer([normalise(text) for text in wanted], [normalise(text) for text in found])
    return error_rate(wanted, found), round(float(letters), 4)


def _ms(seconds: Sequence[float], percentile: float) -> float | None:
    return round(1000 * float(np.percentile(seconds, percentile)), 1) if seconds else None

"""One line of the table: N streams for some seconds, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.engine.agreement import Agreement

Array = npt.NDArray[np.float64]
DRIFT = 0.05
"""A drift that comes to less than this part of a chunk over the run is none: it is within what a run tells."""


@dataclass(frozen=True, slots=True)
class Row:
    """Times in ms.

    Attributes:
        response_p50: from the send of a chunk's last needed sample to its events being handed out, of every chunk.
        drift: ms of response gained per second.
        late: chunks with a response of more than their length.
        unanswered: flushes without a Final half a minute after the end.
        why: what the first refusal or failure said.
        reference: the precision of what the tokens were compared with.
        engine_cpu, client_cpu: core seconds per stream-second.
        roofline: the part of a median step that its arithmetic or memory traffic would take at this machine's best.
    """

    streams: int
    chunk_ms: int
    round: int
    step_p50: float
    step_p95: float
    step_p99: float
    response_p50: float
    response_p95: float
    response_p99: float
    flush_p50: float
    flush_p95: float
    drift: float
    mean_batch: float
    chunks: int
    late: int
    refused: int
    failed: int
    unanswered: int
    why: str
    agreement: Agreement
    reference: str
    engine_cpu: float
    client_cpu: float
    client_lag_p99: float
    rss_mb: float
    roofline: float
    seconds: float

    @property
    def drifts(self) -> bool:
        return self.drift * self.seconds > DRIFT * self.chunk_ms

    def within(self, share: float) -> bool:
        """All streams were carried, and 95 % of responses took less than this share of a chunk, without drift."""
        whole = not (self.refused or self.failed or self.unanswered or self.drifts)
        return whole and self.response_p95 < share * self.chunk_ms


def percentile(values: Array, q: float) -> float:
    return float(np.percentile(values, q)) if len(values) else float("nan")


def slope(times: Array, values: Array) -> float:
    """Least squares, values per unit of time."""
    if len(times) < 2 or np.ptp(times) == 0:
        return 0.0
    centred = times - times.mean()
    return float(centred @ values / (centred @ centred))

"""The figures of a row: so many sessions at once under one kind of loss, for one round.

row = row_of(sessions, round_, weather, outcomes, plans, load)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.accuracy.edits import Edits
from bench.whip.load import Outcome, Weather
from bench.whip.plan import Plan
from bench.whip.talk import PACKET_SECONDS

LAG_SECONDS = 0.1
BUSY = 0.9
"""A row does not count where the sessions' own process was as late with a packet in the median session, or used as much
of a core."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seen from outside.

    Attributes:
        cpu: CPU seconds for each second of audio, by process, while all sessions run.
        rss_mb: by process, at the end of that time.
        client_cpu: part of a core of the busiest process of sessions.
        missing_seconds: of audio that the gateway did not hear, filled or left out, by its log; None: it does not say.
        refused_ms: each POST above the limit until its 503.
        retry_after: whether each of those named a time.
        let_in: POSTs above the limit that got something else.
    """

    cpu: dict[str, float]
    rss_mb: dict[str, float]
    client_cpu: float
    missing_seconds: float | None = None
    refused_ms: list[float] = field(default_factory=list)
    retry_after: bool = True
    let_in: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """Times in ms; None: there is nothing to take them of.

    Attributes:
        word_errors: of each session, and `words` that it was to say, so that rows can be compared session by session.
        caption_p50, caption_p95: from when the packet was due in which a word ends to the first interim that ends with
            it.
        final_p50, final_p95: the same for finals, so the silence that ends a segment is in it.
        before, after: the median of captions in the sentence in front of the track and in that behind it.
        lost_audio: seconds of audio that were not heard for each second that was lost on the line.
        errors: sessions by what ended them early.
        valid: the sessions kept time.
    """

    sessions: int
    round: int
    weather: Weather
    words: list[int]
    word_errors: list[int]
    caption_p50: float | None
    caption_p95: float | None
    final_p50: float | None
    final_p95: float | None
    before: float | None
    after: float | None
    connected_p50: float | None
    connected_max: float | None
    sent: int
    lost: int
    late: int
    lost_audio: float | None
    errors: dict[str, int]
    valid: bool
    cost: Cost

    @property
    def wer(self) -> float:
        return sum(self.word_errors) / max(1, sum(self.words))


def row_of(round_: int, weather: Weather, outcomes: Sequence[Outcome], plans: Sequence[Plan], cost: Cost) -> Row:
    """Session i says plan i modulo their number."""
    planned = [plans[o.session % len(plans)] for o in outcomes]
    found = [" ".join(text for text, _, _ in o.words) for o in outcomes]
    edits = Edits.of([plan.text for plan in planned], found)
    caption, final = [[d for o in outcomes for _, d in getattr(o, kind)] for kind in ("shown", "final")]
    before = [d for o, plan in zip(outcomes, planned, strict=True) for end, d in o.shown if end < plan.begins]
    after = [d for o, plan in zip(outcomes, planned, strict=True) for end, d in o.shown if end >= plan.ends]
    connected = [o.connected for o in outcomes if o.connected]
    sent, lost, late = (sum(getattr(o, name) for o in outcomes) for name in ("sent", "lost", "late"))
    missing = cost.missing_seconds
    lag = float(np.median([o.lag for o in outcomes]))
    return Row(
        sessions=len(outcomes),
        round=round_,
        weather=weather,
        words=edits.words.tolist(),
        word_errors=edits.word_errors.tolist(),
        caption_p50=_ms(caption, 50),
        caption_p95=_ms(caption, 95),
        final_p50=_ms(final, 50),
        final_p95=_ms(final, 95),
        before=_ms(before, 50),
        after=_ms(after, 50),
        connected_p50=_ms(connected, 50),
        connected_max=_ms(connected, 100),
        sent=sent,
        lost=lost,
        late=late,
        lost_audio=None if missing is None or not lost else round(missing / (lost * PACKET_SECONDS), 3),
        errors=dict(Counter(o.error for o in outcomes if o.error is not None)),
        valid=lag <= LAG_SECONDS and cost.client_cpu <= BUSY,
        cost=cost,
    )


def _ms(seconds: Sequence[float], percentile: float) -> float | None:
    return round(1000 * float(np.percentile(seconds, percentile)), 1) if seconds else None

"""A sender's packets, and what a network makes of them; for tests of modules that do no I/O.

sent = SENT.example()                        # what was sent, when it came: a strategy of hypothesis
for at, item in placed(Placement(), sent.deliveries()): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from nemostream_agent.gateway.whip.placed import RATE, Packet, Placed
from nemostream_agent.gateway.whip.placement import Placement

NEAR_WRAP = 40
"""Numbers begin so near their wrap that it lies among the packets."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One packet. `start`: ticks since the first one; `sequence`, `timestamp`: before they wrap; `came`: the times at
    which it did, none of them if it was lost."""

    sequence: int
    timestamp: int
    start: int
    ticks: int
    payload: bytes
    came: tuple[float, ...]

    @property
    def packet(self) -> Packet:
        return Packet(self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, self.payload, self.ticks)


@dataclass(frozen=True, slots=True)
class Talk:
    """A sender's packets, in the order in which they were sent."""

    sent: list[Sent]

    def deliveries(self) -> list[tuple[float, Packet]]:
        """In the order in which they came."""
        came = [(at, i) for i, sent in enumerate(self.sent) for at in sent.came]
        return [(at, self.sent[i].packet) for at, i in sorted(came)]


@st.composite
def talks(draw: st.DrawFn, delay_ms: int = 150) -> Talk:
    """Up to 60 packets: of 2.5 to 120 ms, padding among them, pauses of up to 2 s between them; any of them lost, late
    by up to `delay_ms`, or twice."""
    sequence = draw(st.integers(0x10000 - NEAR_WRAP, 0x10000))
    timestamp = draw(st.integers((1 << 32) - 40 * 5760, 1 << 32))
    steady = draw(st.sampled_from([None, 120, 480, 960, 5760]))
    start, sent = 0, []
    for i in range(draw(st.integers(1, 60))):
        ticks = draw(st.sampled_from([0, 120, 960, 2880])) if steady is None else steady
        start += draw(st.sampled_from([0] * 8 + [7, 960, 20_000, 2 * RATE])) if ticks else 0
        left = 10.0 + start / RATE
        times = draw(st.sampled_from([1, 1, 1, 1, 1, 0, 2]))
        delays = [draw(st.one_of(st.just(0), st.integers(0, delay_ms))) for _ in range(times)]
        came = tuple(left + delay / 1000 for delay in delays)
        sent.append(Sent(sequence + i, timestamp + start, start, ticks, i.to_bytes(2), came))
        start += ticks
    return Talk(sent)


def placed(
    placement: Placement, deliveries: Sequence[tuple[float, Packet]], ticks: Sequence[float] | None = None
) -> Iterator[tuple[float, Placed]]:
    """What is given out, and when. `ticks`: when time is told; None: at every deadline, as an owner does."""
    moments = iter(sorted(ticks)) if ticks is not None else None
    moment = next(moments, None) if moments is not None else placement.deadline
    for at, packet in [*deliveries, (float("inf"), None)]:
        while moment is not None and moment < at:
            yield from ((moment, item) for item in placement.tick(moment))
            assert moments is not None or placement.deadline is None or placement.deadline > moment
            moment = next(moments, None) if moments is not None else placement.deadline
        if packet is not None:
            yield from ((at, item) for item in placement.push(packet, at))
            moment = moment if moments is not None else placement.deadline
    yield from ((float("inf"), item) for item in placement.finish())

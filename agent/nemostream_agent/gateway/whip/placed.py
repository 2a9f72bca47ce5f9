"""What goes into a Placement and what comes out of it: plain data. A tick is 1/48000 s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

RATE = 48_000
"""Ticks in a second: the RTP clock of Opus (RFC 7587, 4.1)."""


@dataclass(frozen=True, slots=True)
class Packet:
    """`sequence` (16 bit) and `timestamp` (32 bit) as RTP has them; `ticks`: how long the payload lasts. A packet
    without ticks (padding, a probe) takes its sequence number, and neither its payload nor its timestamp counts."""

    sequence: int
    timestamp: int
    payload: bytes
    ticks: int


@dataclass(frozen=True, slots=True)
class Audio:
    payload: bytes
    ticks: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Packets that never came: their sequence numbers are missing."""

    ticks: int


@dataclass(frozen=True, slots=True)
class Silence:
    """Time in which nothing was sent (DTX, a pause): the timestamp moves on and no sequence number is missing."""

    ticks: int


@dataclass(frozen=True, slots=True)
class Stall:
    """No audio came for a while; said once until some comes. It takes no time: what that was is told behind it."""


Placed: TypeAlias = Audio | Lost | Silence | Stall


@dataclass(slots=True)
class Statistics:
    """Counts of packets, but for stalls and resyncs.

    Attributes:
        received: all that came.
        lost: whose place was given away.
        late: of those, the ones that came afterwards.
        duplicate: that had come before.
        reordered: that came behind a later one, in time.
        stray: whose sequence number fits nothing, and that no other followed.
        resyncs: times that the place was found by the clock of arrival instead of the timestamp.
    """

    received: int = 0
    lost: int = 0
    late: int = 0
    duplicate: int = 0
    reordered: int = 0
    stray: int = 0
    stalls: int = 0
    resyncs: int = 0

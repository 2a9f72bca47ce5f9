"""ArrivalClock: where a packet should lie by the time at which it came, for what its timestamp says may not be true.

clock = ArrivalClock(rate=48_000)
clock.can_pass(ticks, at)       # whether its timestamp, so far ahead, can be believed
clock.passed(at)                # and what to take for it otherwise
clock.advance(gap, ticks, at)   # its place is taken
"""

from __future__ import annotations

AHEAD = 1.0
"""Seconds by which a timestamp may be ahead of the time that has passed."""
SLEW = 100
"""The sender's clock may be off by one part in so many. Crystals are off by less than one in 1,000."""


class ArrivalClock:
    """Of one stream; all in ticks, of which a second has `rate`.

    By how much the place of a packet is ahead of its arrival is near constant: all that moves it are the network and
    crystals. So that lead is followed slowly, and timestamps that claim much more are not believed. However often they
    do, gaps add up to AHEAD and one part in SLEW more than the time that has passed, at most.
    """

    def __init__(self, rate: int) -> None:
        self._ahead = round(AHEAD * rate)
        self._place = 0
        self._lead: int | None = None
        self._at = 0  # newest arrival

    def passed(self, at: int) -> int:
        """From the place to where it should be; 0 if that is behind it."""
        return 0 if self._lead is None else max(0, at + self._lead - self._place)

    def can_pass(self, ticks: int, at: int) -> bool:
        """Whether so much time can lie between the place and a packet that came then."""
        assert self._lead is not None
        return ticks == 0 or 0 < ticks <= at + self._lead + self._ahead - self._place

    def advance(self, gap: int, ticks: int, at: int) -> None:
        """A packet of so many ticks came then, and lies behind a gap."""
        self._place += gap
        lead = self._place - at
        if self._lead is None:
            self._lead = lead
        else:
            most = max(0, at - self._at) // SLEW
            self._lead += max(-most, min(most, lead - self._lead))
        self._at = max(self._at, at)
        self._place += ticks

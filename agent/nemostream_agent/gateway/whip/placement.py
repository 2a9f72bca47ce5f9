"""Placement: RTP packets as the network brings them -> payloads, losses and silences in the order of time.

placement = Placement()
for placed in placement.push(Packet(sequence, timestamp, payload, ticks), now): ...
placement.deadline             # when to call tick(now), if nothing is pushed before
for placed in placement.finish(): ...

No I/O and no codec: a packet says how long it lasts, and `now` is in seconds on any clock that never goes back. What
is given out is contiguous: Audio, Lost and Silence add up to the time since the first packet.

Recognition plays nothing out, so a packet that is in order is given out at once. Behind a hole packets wait HOLD for
the missing one and no longer. So the delay is 0 wherever nothing is lost, whatever was lost before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .arrival import ArrivalClock
from .placed import RATE, Audio, Lost, Packet, Placed, Silence, Stall, Statistics

HOLD = 0.06
"""Seconds that a packet waits behind a hole. Audio is not sent again over WHIP: what comes late was only overtaken."""
HELD = 64
"""Packets that wait, at most. HOLD is 24 packets of 2.5 ms."""
STALL = 0.4
"""Seconds without audio after which it is said that there is none."""
DROPOUT = 3000
"""Sequence numbers that may be missing at once. What is further ahead is a stream that began anew (RFC 3550, A.1)."""
REMEMBERED = 1024
"""Sequence numbers that a packet may be late by. What is further behind is a stream that began anew."""
NEAR = 60 * RATE
"""Ticks between its timestamp and the newest, likewise."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A packet and when it came; `sequence` counts on where RTP's begins at 0 again."""

    sequence: int
    packet: Packet
    at: float


class Placement:
    """One RTP stream's.

    Args:
        hold: HOLD.
        stall: STALL, more than `hold`; None: it is never said.
        statistics: to count in.
    """

    def __init__(
        self, *, hold: float = HOLD, stall: float | None = STALL, statistics: Statistics | None = None
    ) -> None:
        assert stall is None or stall > hold
        self.statistics = statistics or Statistics()
        self._hold, self._stall = hold, stall
        self._held: dict[int, _Held] = {}
        self._next: int | None = None  # sequence number; None: that of whatever comes
        self._timestamp: int | None = None  # where the next audio begins, by the sender's clock; None: not known
        self._came = 0  # bit i: whether packet _next - 1 - i did
        self._missing = 0  # packets that did not, in front of the next audio
        self._ticks = 0  # what the newest packet lasts
        self._stray: _Held | None = None
        self._audio_at: float | None = None  # when the newest audio came; None: none since the start or the Stall
        self._clock = ArrivalClock(RATE)

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to give out if nothing is pushed before; None: never."""
        due = [held.at + self._hold for held in self._held.values()]
        if self._audio_at is not None and self._stall is not None:
            due.append(self._audio_at + self._stall)
        return min(due, default=None)

    @property
    def waiting(self) -> int:
        """Packets behind a hole, HELD at most."""
        return len(self._held)

    def push(self, packet: Packet, now: float) -> list[Placed]:
        """A packet came. What was due before goes first, so nothing depends on when `tick` was called."""
        placed = self.tick(now)
        self.statistics.received += 1
        return placed + self._sort(packet, now)

    def tick(self, now: float) -> list[Placed]:
        """Time has passed."""
        placed: list[Placed] = []
        due = [held.sequence for held in self._held.values() if held.at + self._hold <= now]
        if due:
            placed += self._release(max(due))
        if self._audio_at is not None and self._stall is not None and self._audio_at + self._stall <= now:
            self._audio_at = None
            self.statistics.stalls += 1
            placed.append(Stall())
        return placed

    def restart(self, now: float) -> list[Placed]:
        """The stream begins anew (another SSRC): what comes next has nothing to do with the numbers so far. Its place
        is found by the clock of arrival."""
        placed = self.tick(now) + self._release_all()
        self.statistics.resyncs += self._timestamp is not None
        self._next = self._timestamp = None
        self._came = 0
        return placed

    def finish(self) -> list[Placed]:
        """What waits, for nothing more comes."""
        self._audio_at = None
        return self._release_all()

    def _sort(self, packet: Packet, at: float) -> list[Placed]:
        if self._next is None:
            self._next = packet.sequence
        ahead = _signed(packet.sequence - self._next, 16)
        held = _Held(self._next + ahead, packet, at)
        if ahead > DROPOUT or (ahead < 0 and not self._is_old(packet, ahead)):
            return self._stand_by(held)
        self._drop_stray()
        if held.sequence in self._held or (ahead < 0 and self._came >> (-ahead - 1) & 1):
            self.statistics.duplicate += 1
            return []
        if ahead < 0:
            self.statistics.late += 1
            return []
        self.statistics.reordered += any(other > held.sequence for other in self._held)
        self._held[held.sequence] = held
        if packet.ticks:
            self._audio_at = at
        return self._release(min(self._held) if len(self._held) > HELD else self._next)

    def _is_old(self, packet: Packet, ahead: int) -> bool:
        """Whether it is of this stream, from before: its timestamp is near too."""
        if ahead < -REMEMBERED:
            return False
        if not packet.ticks or self._timestamp is None:
            return True
        return abs(_signed(packet.timestamp - self._timestamp, 32)) < NEAR

    def _stand_by(self, held: _Held) -> list[Placed]:
        """Its number fits nothing. If the next one follows it, they are a stream that begins anew."""
        stray = self._stray
        if stray is None or (held.packet.sequence - stray.packet.sequence) & 0xFFFF != 1:
            self._drop_stray()
            self._stray = held
            return []
        self._stray = None
        return self.restart(held.at) + self._sort(stray.packet, stray.at) + self._sort(held.packet, held.at)

    def _drop_stray(self) -> None:
        if self._stray is not None:
            self.statistics.stray += 1
            self._stray = None

    def _release_all(self) -> list[Placed]:
        self._drop_stray()
        return self._release(max(self._held, default=0))

    def _release(self, through: int) -> list[Placed]:
        """All up to that number, holes or not, and what follows without one."""
        placed: list[Placed] = []
        while self._held and ((first := min(self._held)) <= through or first == self._next):
            placed += self._give(self._held.pop(first))
        return placed

    def _give(self, held: _Held) -> Iterator[Placed]:
        """Takes its place: all that is in front of it has come or never will."""
        assert self._next is not None
        missing = held.sequence - self._next
        self._next = held.sequence + 1
        self._came = (self._came << (missing + 1) | 1) & ((1 << REMEMBERED) - 1)
        self._missing += missing
        self.statistics.lost += missing
        packet = held.packet
        if not packet.ticks:
            return
        at = round(held.at * RATE)
        ticks = self._ticks_before(packet, at)
        lost = min(ticks, self._missing * self._ticks)
        if lost:
            yield Lost(lost)
        if ticks > lost:
            yield Silence(ticks - lost)
        yield Audio(packet.payload, packet.ticks)
        self._clock.advance(ticks, packet.ticks, at)
        self._timestamp = packet.timestamp + packet.ticks
        self._ticks = packet.ticks
        self._missing = 0

    def _ticks_before(self, packet: Packet, at: int) -> int:
        """Time between the audio before and this packet's: by its timestamp if that can be, else by its arrival."""
        if self._timestamp is None:
            return self._clock.passed(at)
        ticks = _signed(packet.timestamp - self._timestamp, 32)
        if self._clock.can_pass(ticks, at):
            return ticks
        self.statistics.resyncs += 1
        return self._clock.passed(at)


def _signed(difference: int, bits: int) -> int:
    """Of two numbers of so many bits that wrap: the nearest."""
    half = 1 << (bits - 1)
    return (difference + half) % (1 << bits) - half

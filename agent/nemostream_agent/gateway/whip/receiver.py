"""AudioReceiver: RTP packets of an Opus track -> samples at 16 kHz, gaps and stalls.

receiver = AudioReceiver()
for heard in receiver.push(sequence, timestamp, payload, now): ...   # Pcm (n,) int16, Gap or Stall
receiver.deadline             # when to call tick(now), if nothing is pushed before
for heard in receiver.finish(): ...

No I/O: `now` is in seconds on any clock that never goes back. What is given out is contiguous: samples, and those of
gaps, add up to the RTP time since the first packet.

A short hole is filled with the packet before it, decoded again while it fades. With the embedded model at 160 ms, and
packets of 20 ms at 32 kbit/s of which 0, 2, 5 or 10 % are lost at random, 38.3, 39.2, 40.2 or 42.4 % of the words are
wrong, and with silence instead 38.3, 39.5, 42.4 or 46.6 % (4,227 words of held-out voices, the lossy ones heard twice).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TypeAlias

from nemostream.protocol import Pcm

from .opus import NotOpus, OpusDecoder, duration
from .placed import RATE, Audio, Lost, Packet, Placed, Silence, Stall
from .placed import Statistics as PacketStatistics
from .placement import HOLD, STALL, Placement

__all__ = ["AudioReceiver", "Gap", "Heard", "Stall", "Statistics"]

FILLED = 0.1
"""Seconds of loss or silence that become samples, at most; longer ones are a Gap."""
_TICKS = 3
"""Of a sample."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Time without audio, in samples at 16 kHz. `lost`: it was sent and did not come; else nothing was sent."""

    samples: int
    lost: bool


Heard: TypeAlias = Pcm | Gap | Stall


@dataclass(slots=True)
class Statistics(PacketStatistics):
    """Beside the counts of packets:

    Attributes:
        refused: packets that are not Opus; as good as lost.
        filled: samples that were made up.
        gaps: samples of gaps.
    """

    refused: int = 0
    filled: int = 0
    gaps: int = 0


class AudioReceiver:
    """One track's.

    Args:
        hold, stall: Placement's.
        filled: FILLED.
    """

    def __init__(self, *, hold: float = HOLD, stall: float | None = STALL, filled: float = FILLED) -> None:
        self.statistics = Statistics()
        self._placement = Placement(hold=hold, stall=stall, statistics=self.statistics)
        self._decoder = OpusDecoder()
        self._filled = round(filled * RATE)
        self._rest = 0  # ticks that make no whole sample yet

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to give out if nothing is pushed before; None: never."""
        return self._placement.deadline

    def push(self, sequence: int, timestamp: int, payload: bytes, now: float) -> list[Heard]:
        """A packet came; without a payload it is padding. What is not Opus is as good as lost."""
        try:
            ticks = duration(payload) if payload else 0
        except NotOpus:
            self.statistics.refused += 1
            return self.tick(now)
        return self._hear(self._placement.push(Packet(sequence, timestamp, payload, ticks), now))

    def tick(self, now: float) -> list[Heard]:
        """Time has passed."""
        return self._hear(self._placement.tick(now))

    def restart(self, now: float) -> list[Heard]:
        """The track goes on as another RTP stream (another SSRC)."""
        return self._hear(self._placement.restart(now))

    def finish(self) -> list[Heard]:
        """All that is held back; nothing more comes."""
        return [*self._hear(self._placement.finish()), *_some(self._decoder.finish())]

    def facts(self) -> dict[str, int]:
        """`statistics` by name, for a log."""
        return asdict(self.statistics)

    def _hear(self, placed: Iterable[Placed]) -> list[Heard]:
        heard: list[Heard] = []
        for item in placed:
            if isinstance(item, Stall):
                heard.append(item)
            elif isinstance(item, Audio):
                heard += _some(self._decode(item))
            elif item.ticks <= self._filled:
                heard += _some(self._fill(item))
            else:
                heard += _some(self._decoder.finish())
                heard.append(self._gap(item))
        return heard

    def _decode(self, audio: Audio) -> Pcm:
        try:
            return self._decoder.decode(audio.payload)
        except NotOpus:
            self.statistics.refused += 1
            return self._fill(Lost(audio.ticks))

    def _fill(self, hole: Lost | Silence) -> Pcm:
        samples = self._samples(hole.ticks)
        self.statistics.filled += samples
        make = self._decoder.conceal if isinstance(hole, Lost) else self._decoder.silence
        return make(samples * _TICKS)

    def _gap(self, hole: Lost | Silence) -> Gap:
        samples = self._samples(hole.ticks)
        self.statistics.gaps += samples
        return Gap(samples, isinstance(hole, Lost))

    def _samples(self, ticks: int) -> int:
        """Of so much time: what is left over counts with the next."""
        samples, self._rest = divmod(self._rest + ticks, _TICKS)
        return samples


def _some(samples: Pcm) -> list[Pcm]:
    return [samples] if len(samples) else []

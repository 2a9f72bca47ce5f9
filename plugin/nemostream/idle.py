"""Which live streams have gone quiet (mute, DTX, a vanished peer): nobody waits for them, and their text is final."""

from __future__ import annotations

import math
from collections.abc import Iterable

from nemostream.scheduler import Slot

IDLE_SECONDS = 0.4
"""A live stream that sent nothing for this long is idle. One that sends larger blocks has the time of two of them: the
text must not depend on how audio is cut."""


class IdleWatch:
    """Looks at every stream only when one may be due: a push costs nothing.

    Attributes:
        due: when some stream may have gone idle; None: never.
    """

    def __init__(self) -> None:
        self.due: float | None = None

    def heard(self, slots: Iterable[Slot], now: float, blocks: Iterable[float] = (0.0,)) -> None:
        """These streams sent a block of audio each, of so many seconds: others may wait for their next ones."""
        due = math.inf if self.due is None else self.due
        for slot, seconds in zip(slots, blocks, strict=True):
            if not slot.expected:
                slot.expect(True)
            slot.idle_at = idle_at = now + max(IDLE_SECONDS, 2 * seconds)
            if idle_at < due and slot.live:
                due = idle_at
        self.due = None if due == math.inf else due

    def gone(self, slots: Iterable[tuple[Slot, bool]], now: float) -> list[Slot]:
        """Those that have gone idle since the last call.

        Args:
            slots: all streams, and whether each is busy: what it was asked before comes first.
        """
        if self.due is None or now < self.due:
            return []
        gone: list[Slot] = []
        self.due = None
        for slot, busy in slots:
            if not (slot.live and slot.expected):
                continue
            if now >= slot.idle_at and not busy:
                slot.expect(False)
                gone.append(slot)
                continue
            if now >= slot.idle_at:
                slot.idle_at = now + IDLE_SECONDS
            self.due = slot.idle_at if self.due is None else min(self.due, slot.idle_at)
        return gone

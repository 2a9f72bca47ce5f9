"""Who sends faster than the engine hears waits for it: so what is on its way is bounded.

stream.push(samples)
await pace.wait()            # while the engine is AHEAD behind
pace.heard(event.total)      # for each Usage
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nemostream.protocol import SAMPLE_RATE

if TYPE_CHECKING:
    from nemostream.client import ClientStream

AHEAD = 15 * SAMPLE_RATE
"""Samples by which a source may be ahead of the engine. Beyond that nothing is read from it. (The engine says every 5 s
how far it is, and closes a live stream that is 30 s behind.)"""


class Pace:
    """One stream's."""

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream
        self._heard = 0
        self._moved = asyncio.Event()

    async def wait(self) -> None:
        """Until the engine has come near enough, or the stream is over."""
        while self._stream.at_sample - self._heard > AHEAD and not self._stream.over:
            self._moved.clear()
            await self._moved.wait()

    def heard(self, total: int) -> None:
        """The engine has heard so many samples since the stream's begin."""
        self._heard = total
        self._moved.set()

    def over(self) -> None:
        """The stream has ended, or nobody listens any more."""
        self._moved.set()

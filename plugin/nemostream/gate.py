"""The gate in front of the model: silence does not pass, and the stream's clock jumps over it.

gate = Gate(passes_for(Endpointing()))
for item in gate.hear(window, speaking): ...   # what goes on: windows, and requests with their place between them
lost = gate.drop()                             # samples that will never go on
for item in gate.release(): ...                # what is kept back, when something else is to go on in its order

It opens when speech begins and closes some silence after it. Closed, it keeps back the newest windows: the first sound
of a word is softer than what the detector calls speech.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from nemostream.inbox import Request
from nemostream.protocol import SAMPLE_RATE, Endpointing, Samples
from nemostream.vad import WINDOW

PREROLL = 10
"""Windows (320 ms) in front of speech that go on with it. A window later the detector is rarely sure; a model that has
heard nothing before needs a moment of silence."""
SETTLE_MS = 600
"""Silence behind speech in which a model has said all of it: what it emits late, and what was spoken on when the
detector had called it the end."""
LEAST_BLANK_MS = 400
"""What ends a segment by default. Silence passes for so long, or for as long as endpointing waits, and SETTLE_MS: so
segments end where they would without the gate."""
SETTLED = LEAST_BLANK_MS * SAMPLE_RATE // 1000
"""Of the silence in front of a closed gate, samples that no chunk need have had: SETTLE_MS came before them."""


def passes_for(endpointing: Endpointing) -> int:
    """Samples of silence behind speech that pass."""
    slowest = max(endpointing.blank_ms or 0, endpointing.vad_ms or 0, LEAST_BLANK_MS)
    return (slowest + SETTLE_MS) * SAMPLE_RATE // 1000


@dataclass(slots=True)
class GateState:
    """A Gate as plain data; `held`: what is kept back, in one piece."""

    passes: int
    open: bool
    quiet: int
    dropped: int
    held: Samples


class Gate:
    """What one stream's gate knows.

    Attributes:
        passes: samples of silence behind speech that pass.
        open: what comes goes on.
        quiet: samples since speech, while it is open.
        dropped: samples that the clock has to jump over before anything goes on.
    """

    __slots__ = ("_held", "dropped", "open", "passes", "quiet")

    def __init__(self, passes: int, open: bool = False) -> None:
        self.passes = passes
        self.open = open
        self.quiet = self.dropped = 0
        self._held: deque[Samples] = deque()

    @property
    def held(self) -> int:
        """Samples that are kept back."""
        return sum(map(len, self._held))

    def hear(self, window: Samples, speaking: bool) -> list[Samples | Request]:
        """Take a window and what the detector says of it; what goes on. A request for what is pending comes where the
        gate closes: nothing will be heard for a while."""
        if speaking:
            self.open, self.quiet = True, 0
            return [*self.release(), window]
        if not self.open:
            self._held.append(window)
            return []
        self.quiet += len(window)
        if self.quiet < self.passes:
            return [window]
        self.open = False
        return [window, Request("gap", silent=True)]

    def drop(self) -> int:
        """Let go of all but the newest PREROLL windows; how many samples those were."""
        lost = 0
        while len(self._held) > PREROLL:
            lost += len(self._held.popleft())
        self.dropped += lost
        return lost

    def release(self) -> list[Samples | Request]:
        """What is kept back, behind a gap of what was dropped before it. The gate stays as it is."""
        released: list[Samples | Request] = []
        if self.dropped:
            released.append(Request("gap", gap=self.dropped, silent=True))
        released += self._held
        self.dropped = 0
        self._held.clear()
        return released

    def export(self) -> GateState:
        held = np.concatenate([np.zeros(0, np.float32), *self._held])
        return GateState(self.passes, self.open, self.quiet, self.dropped, held)

    @classmethod
    def load(cls, saved: GateState) -> Gate:
        gate = cls(saved.passes, saved.open)
        gate.quiet, gate.dropped = saved.quiet, saved.dropped
        gate._held.extend(saved.held[i : i + WINDOW] for i in range(0, len(saved.held), WINDOW))
        return gate

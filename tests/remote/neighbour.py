"""A client that talks while others misbehave: what it hears must not change."""

from __future__ import annotations

from nemostream.model import Model
from tests.engine.conftest import offline, utterance
from tests.remote.talk import Talk, blocks
from tests.serving import ServedEngine


class Neighbour:
    """Two streams that talk while something happens: `half()`, the disturbance, `end()`."""

    def __init__(self, served: ServedEngine, toy: Model, seed: int) -> None:
        self._speech = [utterance(seed + i, 6) for i in range(2)]
        self._expected = [offline(toy, s, chunk_ms=160) for s in self._speech]
        self._talk = Talk(served, self._speech)
        self._blocks = iter(blocks(self._speech))

    def half(self) -> None:
        for block in range(len(blocks(self._speech)) // 2):
            self._talk.say(next(self._blocks, block))

    def end(self) -> None:
        """The rest; every word must be there, and nothing may be missing or late beyond reading to the end."""
        for block in self._blocks:
            self._talk.say(block)
        self._talk.end()
        assert [self._talk.text(i) for i in range(2)] == self._expected
        assert all(f.whole for finals in self._talk.finals.values() for f in finals)

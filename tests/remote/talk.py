"""Streams that speak at once over one engine, block by block."""

from __future__ import annotations

import queue
from collections.abc import Sequence

from nemostream.protocol import Close, Ended, Event, Failed, Final, Open, Push, Samples
from nemostream.registry import AnyEngine

BLOCK = 1280


def blocks(speech: Sequence[Samples]) -> range:
    return range(max(-(-len(s) // BLOCK) for s in speech))


class Talk:
    """talk = Talk(engine, speech); talk.say(block) for each of blocks(speech); talk.end(); talk.text(0)

    Attributes:
        finals: by stream, in order.
    """

    def __init__(self, engine: AnyEngine, speech: Sequence[Samples], chunk_ms: int = 160) -> None:
        self.speech = speech
        self.finals: dict[int, list[Final]] = {i: [] for i in range(len(speech))}
        self._heard: queue.Queue[Event] = queue.Queue()
        self._connection = engine.connect(self._take)
        self._connection.send(*(Open(i, chunk_ms=chunk_ms) for i in self.finals))

    def say(self, block: int) -> None:
        """The next block of every stream."""
        start = block * BLOCK
        parts = ((i, samples[start : start + BLOCK]) for i, samples in enumerate(self.speech))
        self._connection.send(*(Push(i, part, start) for i, part in parts if len(part)))

    def end(self) -> None:
        """Close all streams and read to their end."""
        self._connection.send(*(Close(i) for i in self.finals))
        left = set(self.finals)
        while left:
            event = self._heard.get(timeout=60)
            assert not isinstance(event, Failed), event
            if isinstance(event, Ended):
                left.remove(event.stream)

    def text(self, stream: int) -> str:
        return " ".join(f.text for f in self.finals[stream] if f.text)

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Final):
                self.finals[event.stream].append(event)
            self._heard.put(event)

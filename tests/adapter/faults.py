"""A real engine whose streams can be made to fail, as a lost process or a broken step would make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nemostream.engine import Connection, Engine
from nemostream.protocol import Close, Event, Failed, Message, Open, Push

Deliver = Callable[[Sequence[Event]], None]


class FaultyEngine:
    """Passes everything on to `engine`, but the first `failures` streams fail once they have heard `after` samples."""

    def __init__(self, engine: Engine, *, after: int, failures: int = 1) -> None:
        self.engine = engine
        self.after = after
        self.failures = failures

    def connect(self, deliver: Deliver) -> FaultyConnection:
        return FaultyConnection(self, deliver)


class FaultyConnection:
    def __init__(self, faulty: FaultyEngine, deliver: Deliver) -> None:
        self._faulty = faulty
        self._deliver = deliver
        self._doomed: dict[int, int] = {}
        self._failed: set[int] = set()
        self._connection: Connection = faulty.engine.connect(self._pass_on)

    def send(self, *messages: Message) -> None:
        for message in messages:
            if message.stream not in self._failed:
                self._connection.send(message)
            if isinstance(message, Open) and self._faulty.failures:
                self._faulty.failures -= 1
                self._doomed[message.stream] = 0
            elif isinstance(message, Push) and message.stream in self._doomed:
                self._doomed[message.stream] += len(message.samples)
                if self._doomed[message.stream] >= self._faulty.after:
                    self._fail(message.stream)

    def close(self) -> None:
        self._connection.close()

    def _fail(self, stream: int) -> None:
        del self._doomed[stream]
        self._failed.add(stream)
        self._connection.send(Close(stream, drain=False))
        self._deliver([Failed(stream, 0, 0, "StepFailed", "the device was lost", True)])

    def _pass_on(self, events: Sequence[Event]) -> None:
        self._deliver([event for event in events if event.stream not in self._failed])

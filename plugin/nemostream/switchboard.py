"""The streams of all owners in a process, on one link: their numbers on the wire, and a ledger for each.

board = Switchboard()
messages, answers = board.send(owner, Open(stream=1))
events_by_owner = board.take(events)
messages = board.replay()                    # to a new engine
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from nemostream.errors import EngineLost, NemostreamError, StreamClosed, VersionMismatch
from nemostream.ledger import Ledger
from nemostream.protocol import Close, Ended, Event, Failed, Flush, Message, Open, Push, Refused

Answers = dict[int, list[Event]]
RETRY_AFTER = 2.0


@dataclass(slots=True, eq=False)
class _Held:
    owner: int
    number: int
    ledger: Ledger


class Switchboard:
    """Pure bookkeeping: no socket, no clock. `len` is the number of open streams."""

    def __init__(self) -> None:
        self._wires = itertools.count(1)
        self._held: dict[int, _Held] = {}
        self._wire: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def send(self, owner: int, message: Message) -> tuple[list[Message], Answers]:
        """What goes over the wire for a message, and what can be answered without."""
        key = owner, message.stream
        wire = self._wire.get(key)
        if isinstance(message, Open):
            if wire is not None:
                error = StreamClosed(f"stream {message.stream} is open already; choose another number")
                return [], {owner: [_refused(message.stream, error)]}
            wire = self._wire[key] = next(self._wires)
            held = self._held[wire] = _Held(owner, message.stream, Ledger(message))
            return [_renumbered(held.ledger.opened, wire)], {}
        if wire is None:
            # As the engine does: a flush is awaited, so it must be answered; anything else may come too late.
            return [], {owner: [_not_open(message.stream)]} if isinstance(message, Flush) else {}
        self._held[wire].ledger.sent(message)
        return [_renumbered(message, wire)], {}

    def reject(self, owner: int, stream: int, error: NemostreamError) -> tuple[list[Message], Answers]:
        """A message that cannot be sent ends its stream, as it does in an engine."""
        wire = self._wire.get((owner, stream))
        if wire is None:
            return [], {owner: [_refused(stream, error)]}
        self._drop(wire)
        failed = Failed(stream, 0, 0, type(error).__name__, str(error), retryable=False)
        return [Close(wire, drain=False)], {owner: [failed]}

    def leave(self, owner: int) -> list[Message]:
        """An owner is gone: its streams are closed."""
        wires = [wire for wire, held in self._held.items() if held.owner == owner]
        for wire in wires:
            self._drop(wire)
        return [Close(wire, drain=False) for wire in wires]

    def take(self, events: Iterable[Event]) -> Answers:
        """What the engine says, by owner, as its owner should see it."""
        answers: Answers = {}
        for event in events:
            held = self._held.get(event.stream)
            if held is None:
                continue
            for mine in held.ledger.take(event):
                answers.setdefault(held.owner, []).append(dataclasses.replace(mine, stream=held.number))
                if isinstance(mine, (Ended, Failed, Refused)):
                    self._drop(event.stream)
        return answers

    def replay(self) -> list[Message]:
        """All that a new engine must be told."""
        return [_renumbered(m, wire) for wire, held in self._held.items() for m in held.ledger.replay()]

    def fail_all(self, error: NemostreamError) -> Answers:
        """There is no engine, and none will come: every stream is told."""
        answers: Answers = {}
        for wire, held in list(self._held.items()):
            event: Event = _refused(held.number, error)
            if held.ledger.started:
                retryable = not isinstance(error, VersionMismatch)
                event = Failed(held.number, 0, 0, type(error).__name__, str(error), retryable)
            answers.setdefault(held.owner, []).append(event)
            self._drop(wire)
        return answers

    def _drop(self, wire: int) -> None:
        held = self._held.pop(wire)
        del self._wire[held.owner, held.number]


def _renumbered(message: Message, wire: int) -> Message:
    if isinstance(message, Push):  # nearly all are: `replace` takes four times as long
        return Push(wire, message.samples, message.at_sample)
    return dataclasses.replace(message, stream=wire)


def _refused(stream: int, error: NemostreamError) -> Refused:
    after = RETRY_AFTER if isinstance(error, EngineLost) else None
    return Refused(stream, 0, 0, type(error).__name__, str(error), after)


def _not_open(stream: int) -> Failed:
    text = f"stream {stream} is not open; open it before flush"
    return Failed(stream, 0, 0, code=StreamClosed.__name__, message=text, retryable=False)

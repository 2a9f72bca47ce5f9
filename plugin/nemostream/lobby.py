"""Streams whose model is still loading, or whose rows are being made: what is sent to them waits here, in order, as
much as may wait for a step.

first = lobby.enter(number, opened)      # True: nobody waits for the same yet, so somebody must see to it
lobby.put(number, push)
for number, message in lobby.leave(awaited(opened)): ...
"""

from __future__ import annotations

from collections.abc import Collection

from nemostream.errors import Overrun
from nemostream.protocol import Message, Open, Push
from nemostream.seat import MAX_BACKLOG

Awaited = tuple[str | None, int | None]
"""A model, and the chunk size whose rows are wanted of it."""

Letter = tuple[int, Message]
"""The number of its owner, and what it sent."""


def awaited(opened: Open) -> Awaited:
    """What that stream needs."""
    return opened.model, opened.chunk_ms


class Lobby:
    """Lists of letters by what is awaited, and which stream waits for what."""

    def __init__(self) -> None:
        self._letters: dict[Awaited, list[Letter]] = {}
        self._waits: dict[tuple[int, int], Awaited] = {}
        self._room: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        """Streams that wait here."""
        return len(self._waits)

    def __contains__(self, key: tuple[int, int]) -> bool:
        """Whether that stream (of that owner) waits here."""
        return key in self._waits

    @property
    def models(self) -> Collection[str | None]:
        """Those that are awaited."""
        return {model for model, _ in self._letters}

    @property
    def letters(self) -> list[Letter]:
        """All that wait."""
        return [letter for letters in self._letters.values() for letter in letters]

    def enter(self, number: int, opened: Open) -> bool:
        """A stream waits; True if it is the first that does for the same."""
        wanted = awaited(opened)
        first = wanted not in self._letters
        self._waits[number, opened.stream] = wanted
        self._room[number, opened.stream] = MAX_BACKLOG[opened.priority]
        self._letters.setdefault(wanted, []).append((number, opened))
        return first

    def put(self, number: int, message: Message) -> None:
        """Something for a stream that waits.

        Raises:
            Overrun: more audio than may wait; the stream is out of here.
        """
        key = number, message.stream
        letters = self._letters[self._waits[key]]
        letters.append((number, message))
        if isinstance(message, Push):
            self._room[key] -= len(message.samples)
            if self._room[key] < 0:
                letters[:] = [(n, m) for n, m in letters if (n, m.stream) != key]
                del self._waits[key], self._room[key]
                raise Overrun("more audio waits than may while the model loads; open it again later")

    def leave(self, wanted: Awaited) -> list[Letter]:
        """It is there, or cannot be had: all letters to the streams that wait for it, in order."""
        letters = self._letters.pop(wanted)
        self._waits = {key: its for key, its in self._waits.items() if its != wanted}
        self._room = {key: samples for key, samples in self._room.items() if key in self._waits}
        return letters

    def forget(self, number: int) -> None:
        """The owner is gone. Its letters stay until they are handed out, and lead nowhere then."""
        self._waits = {key: its for key, its in self._waits.items() if key[0] != number}
        self._room = {key: samples for key, samples in self._room.items() if key in self._waits}

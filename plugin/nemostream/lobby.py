"""Streams whose model is still loading: what is sent to them waits here, in order, as much as may wait for a step.

first = lobby.enter(number, opened)      # True: nobody waits for this model yet, so somebody must load it
lobby.put(number, push)
for number, message in lobby.leave(model): ...
"""

from __future__ import annotations

from collections.abc import Collection

from nemostream.errors import Overrun
from nemostream.protocol import Message, Open, Push
from nemostream.seat import MAX_BACKLOG

Letter = tuple[int, Message]
"""The number of its owner, and what it sent."""


class Lobby:
    """Lists of letters by model, and which stream waits for which."""

    def __init__(self) -> None:
        self._letters: dict[str | None, list[Letter]] = {}
        self._model: dict[tuple[int, int], str | None] = {}
        self._room: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        """Streams that wait here."""
        return len(self._model)

    def __contains__(self, key: tuple[int, int]) -> bool:
        """Whether that stream (of that owner) waits here."""
        return key in self._model

    @property
    def models(self) -> Collection[str | None]:
        """Those that are awaited."""
        return self._letters.keys()

    @property
    def letters(self) -> list[Letter]:
        """All that wait."""
        return [letter for letters in self._letters.values() for letter in letters]

    def enter(self, number: int, opened: Open) -> bool:
        """A stream waits for its model; True if it is the first."""
        first = opened.model not in self._letters
        self._model[number, opened.stream] = opened.model
        self._room[number, opened.stream] = MAX_BACKLOG[opened.priority]
        self._letters.setdefault(opened.model, []).append((number, opened))
        return first

    def put(self, number: int, message: Message) -> None:
        """Something for a stream that waits.

        Raises:
            Overrun: more audio than may wait; the stream is out of here.
        """
        key = number, message.stream
        letters = self._letters[self._model[key]]
        letters.append((number, message))
        if isinstance(message, Push):
            self._room[key] -= len(message.samples)
            if self._room[key] < 0:
                letters[:] = [(n, m) for n, m in letters if (n, m.stream) != key]
                del self._model[key], self._room[key]
                raise Overrun("more audio waits than may while the model loads; open it again later")

    def leave(self, model: str | None) -> list[Letter]:
        """Its loading has ended: all letters to its streams, in order."""
        letters = self._letters.pop(model)
        self._model = {key: awaited for key, awaited in self._model.items() if awaited != model}
        self._room = {key: samples for key, samples in self._room.items() if key in self._model}
        return letters

    def forget(self, number: int) -> None:
        """The owner is gone. Its letters stay until they are handed out, and lead nowhere then."""
        self._model = {key: awaited for key, awaited in self._model.items() if key[0] != number}
        self._room = {key: samples for key, samples in self._room.items() if key in self._model}

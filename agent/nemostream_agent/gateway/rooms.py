"""Rooms of the gateway's own: who publishes, who reads, and what was said. In memory, in one process.

rooms = Rooms()
with rooms.speaking("kitchen", Speaker(id, "Anna")) as room: room.say(message)
with rooms.reading("kitchen") as reader:
    async for number, text in reader: ...
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from . import captions
from .captions import Message, Speaker
from .errors import full

HISTORY = 200
"""Finals that a room remembers for those who come later."""
KEEP_SECONDS = 600.0
"""A room that is empty is remembered for so long: pages are loaded again, connections are made anew."""
MAX_ROOMS = 1000
"""That are remembered though nobody is there: beyond them the one that was left first is forgotten."""
BEHIND = 2000
"""Messages that may wait for one reader; one that is further behind does not read, and is let go."""

Line = tuple[int | None, str]
"""A message; finals have a number, from which a reader may go on later."""


class Reader:
    """What one reader has not read yet: of interims the newest of each speaker, all else in order."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque()
        self._interims: dict[str, str] = {}
        self._news = asyncio.Event()
        self.over = False

    def put(self, message: Message, number: int | None) -> None:
        if self.over:
            return
        if message.interim:
            self._interims[message.speaker] = message.text
        else:
            self._interims.pop(message.speaker, None)
            self._lines.append((number, message.text))
            if len(self._lines) > BEHIND:
                self.end()
        self._news.set()

    def end(self) -> None:
        self.over = True
        self._news.set()

    def __aiter__(self) -> AsyncIterator[Line]:
        return self

    async def __anext__(self) -> Line:
        while (line := self.take()) is None:
            if self.over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return line

    def take(self) -> Line | None:
        """What waits longest; None: nothing does."""
        if self._lines:
            return self._lines.popleft()
        if self._interims:
            return None, self._interims.pop(next(iter(self._interims)))
        return None


class Room:
    """
    Attributes:
        speakers: by id.
        said: the last HISTORY finals, each with its number.
    """

    def __init__(self, name: str, numbers: Iterator[int]) -> None:
        """`numbers`: of finals, growing."""
        self.name = name
        self.speakers: dict[str, Speaker] = {}
        self.said: deque[tuple[int, Message]] = deque(maxlen=HISTORY)
        self.readers: set[Reader] = set()
        self.left_at: float | None = None
        self._numbers = numbers

    def say(self, message: Message) -> None:
        number = None
        if message.final:
            number = next(self._numbers)
            self.said.append((number, message))
        for reader in tuple(self.readers):
            reader.put(message, number)

    def reader(self, you: str | None, after: int | None) -> Reader:
        """One that is told first who is here and what was said behind the final `after`."""
        reader = Reader()
        opening = captions.room(self.name, you, list(self.speakers.values()))
        reader.put(Message(opening, ""), None)
        for number, message in self.said:
            if after is None or number > after:
                reader.put(message, number)
        self.readers.add(reader)
        return reader


class Rooms:
    """Args:
    readers: in all rooms at once; beyond them the next is refused.
    clock: seconds, monotonic.
    """

    def __init__(self, readers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rooms: dict[str, Room] = {}
        self._readers, self._limit, self._clock = 0, readers, clock
        # Of all rooms together, and higher when the gateway is started again: "behind number N" hides nothing.
        self._numbers = itertools.count(int(time.time() * 1000))

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def readers(self) -> int:
        return self._readers

    @contextmanager
    def speaking(self, name: str, speaker: Speaker) -> Iterator[Room]:
        room = self._enter(name)
        room.speakers[speaker.id] = speaker
        room.say(captions.joined(speaker))
        try:
            yield room
        finally:
            del room.speakers[speaker.id]
            room.say(captions.left(speaker))
            self._leave(room)

    @contextmanager
    def reading(self, name: str, you: str | None = None, after: int | None = None) -> Iterator[Reader]:
        """
        Args:
            you: the reader's own id as a speaker.
            after: number of the last final that was read before.

        Raises:
            Refusal: there are as many readers as there may be.
        """
        if self._readers >= self._limit:
            raise full(f"all {self._limit} places of readers are taken; try again later")
        room = self._enter(name)
        reader = room.reader(you, after)
        self._readers += 1
        try:
            yield reader
        finally:
            self._readers -= 1
            room.readers.discard(reader)
            self._leave(room)

    def end(self) -> None:
        """All readers are told no more."""
        for room in self._rooms.values():
            for reader in tuple(room.readers):
                reader.end()

    def _enter(self, name: str) -> Room:
        self._forget()
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(name, self._numbers)
        room.left_at = None
        return room

    def _leave(self, room: Room) -> None:
        if room.speakers or room.readers:
            return
        if room.said:
            # Last in the order of the dictionary: the one that was left first is the first.
            room.left_at = self._clock()
            self._rooms[room.name] = self._rooms.pop(room.name)
        else:
            del self._rooms[room.name]

    def _forget(self) -> None:
        empty = [room for room in self._rooms.values() if room.left_at is not None]
        for i, room in enumerate(empty):
            if len(empty) - i > MAX_ROOMS or self._clock() - (room.left_at or 0.0) > KEEP_SECONDS:
                del self._rooms[room.name]

"""Inbox: the caption messages of one listener with their arrival times, to read and to wait for.

await inbox.until(lambda: inbox.of("final"))
inbox.text("Anna's id")                # what she said, as far as it is final
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Message:
    """`at`: Unix time of its arrival here. `id`: of the server-sent event, where it came as one that has an id."""

    at: float
    data: dict[str, Any]
    id: str | None = None


@dataclass(slots=True)
class Inbox:
    """`over`: the other side has ended it."""

    messages: list[Message] = field(default_factory=list)
    over: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, text: str, id: str | None = None) -> None:
        self.messages.append(Message(time.time(), json.loads(text), id))
        self._changed.set()

    def end(self) -> None:
        self.over = True
        self._changed.set()

    def notify(self) -> None:
        """Something else has changed that somebody may wait for."""
        self._changed.set()

    def of(self, kind: str, speaker: str | None = None) -> list[dict[str, Any]]:
        """Messages of a type, in their order; of one speaker, or of all."""
        found = (message.data for message in self.messages)
        return [data for data in found if data["type"] == kind and speaker in (None, data.get("speaker"))]

    def text(self, speaker: str | None = None) -> str:
        return " ".join(data["text"] for data in self.of("final", speaker) if data["text"])

    async def until(self, true: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """
        Raises:
            TimeoutError: it has not become true; the message shows what came last.
            EOFError: it cannot any more, since the other side has ended it.
        """
        deadline = time.monotonic() + seconds
        while not true():
            last = [message.data for message in self.messages[-3:]]
            if self.over:
                raise EOFError(f"it is over; the last messages: {last}")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise TimeoutError(f"not within {seconds:g} s; the last messages: {last}") from None

"""What a client's side of a WebSocket protocol is: messages to send, and a reader of the answers. No I/O.

line.py carries the messages; each protocol is a small class beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

RATE = 16_000
"""Samples a second of what is sent: 16-bit, mono, little-endian."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a server has understood. A final stays; what is not final is replaced by the next one."""

    text: str
    final: bool


class Talk(Protocol):
    """One stream's.

    Attributes:
        scheme: of the Authorization header.
        query: what the address must say of the audio.
        over: the server has said everything.
    """

    scheme: str
    query: Mapping[str, str]
    over: bool

    def begin(self) -> Sequence[str]:
        """Before the audio."""
        ...

    def end(self) -> Sequence[str]:
        """Behind the audio."""
        ...

    def read(self, message: str) -> Heard | None:
        """None: it says nothing of the text. What it says of an error comes again as the connection's end.

        Raises:
            msgspec.MsgspecError: it is no message of this protocol.
        """
        ...

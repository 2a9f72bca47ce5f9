"""What a WebSocket protocol is: a parser of what clients send and a formatter of what they are told. No I/O.

converse.py moves the messages between a socket and a session; each dialect is a small class beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nemostream.protocol import Final, Interim, Preflight

from .errors import Refusal
from .session import Session
from .settings import StreamOptions


@dataclass(frozen=True, slots=True)
class Start:
    """Open a stream."""

    options: StreamOptions


@dataclass(frozen=True, slots=True)
class Audio:
    data: bytes


@dataclass(frozen=True, slots=True)
class Finalize:
    """What is pending becomes final now."""


@dataclass(frozen=True, slots=True)
class End:
    """No more audio comes: give the rest."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The client is still there."""


Command = Start | Audio | Finalize | End | KeepAlive
Messages = Sequence[str]


class Dialect(Protocol):
    """One connection's.

    Attributes:
        name: in metrics and logs.
        options: of the stream that is opened at once; None: a Start says.
        repeats: behind a stream that has ended another may be started.
    """

    name: str
    options: StreamOptions | None
    repeats: bool

    def read(self, message: str | bytes) -> Command:
        """Raises Refusal: it means nothing in this protocol."""
        ...

    def opened(self, session: Session) -> Messages: ...

    def heard(self, session: Session) -> Messages:
        """Behind audio that was pushed."""
        ...

    def event(self, event: Interim | Preflight | Final) -> Messages: ...

    def ended(self, session: Session) -> Messages:
        """Behind the last event."""
        ...

    def refused(self, error: Refusal) -> Messages:
        """Before the connection is closed because of `error`."""
        ...

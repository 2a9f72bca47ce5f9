"""`/ws`: binary PCM in any size, then the text END; answers {"text", "is_final", "timestamp"}, and END as the last."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from nemostream.protocol import Final, Interim, Preflight

from .dialect import Audio, Command, End, Messages
from .errors import Refusal, bad_data
from .session import Session
from .settings import StreamOptions

END = "END"


class WsDialect:
    """`timestamp` is when the text was given, in seconds since the epoch. Text is that of the current segment; behind a
    final the next one begins."""

    name = "ws"
    repeats = False

    def __init__(self, options: StreamOptions, clock: Callable[[], float] = time.time) -> None:
        self.options: StreamOptions | None = options
        self._clock = clock

    def read(self, message: str | bytes) -> Command:
        if isinstance(message, bytes):
            return Audio(message)
        if message.strip() == END:
            return End()
        raise bad_data(f"text on this socket is {END}; audio is sent as binary messages")

    def opened(self, session: Session) -> Messages:
        return ()

    def heard(self, session: Session) -> Messages:
        return ()

    def event(self, event: Interim | Preflight | Final) -> Messages:
        if isinstance(event, Preflight) or not event.text:
            return ()
        return (self._message(text=event.text, is_final=isinstance(event, Final)),)

    def ended(self, session: Session) -> Messages:
        return (END,)

    def refused(self, error: Refusal) -> Messages:
        return (self._message(text="", is_final=True, error=str(error)),)

    def _message(self, **fields: object) -> str:
        return msgspec.json.encode({**fields, "timestamp": self._clock()}).decode()

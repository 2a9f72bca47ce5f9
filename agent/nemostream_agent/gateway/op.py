"""`/`: {"op": "init", "sid", "sr"}, binary PCM16, {"op": "close", "sid"}; answers {"op": "interim", "sid", "text",
"final", "ts"}.

Without endpointing, which is the default here, `text` is all that was said since init, and the one final answers close.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import msgspec

from nemostream.protocol import NO_ENDPOINT, Final, Interim, Preflight

from .dialect import Audio, Command, End, Messages, Start
from .errors import Refusal, bad_data
from .session import Session
from .settings import StreamOptions


class _Message(msgspec.Struct):
    op: str
    sid: str | int | None = None
    sr: int = 16_000


_decoder = msgspec.json.Decoder(_Message)


class OpDialect:
    """Streams of one connection, one after another, each begun by its init. `ts`: Unix time in ms."""

    name = "op"
    repeats = True
    options: StreamOptions | None = None

    def __init__(self, options: StreamOptions, clock: Callable[[], float] = time.time) -> None:
        """`options`: of every stream; the rate is that of init. Without `endpointing` there is none."""
        self._options = dataclasses.replace(options, endpointing=options.endpointing or NO_ENDPOINT)
        self._whole = self._options.endpointing == NO_ENDPOINT
        self._clock = clock
        self._sid: str | int | None = None
        self._said: list[str] = []
        self._answered = False

    def read(self, message: str | bytes) -> Command:
        if isinstance(message, bytes):
            return Audio(message)
        try:
            asked = _decoder.decode(message)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise bad_data(f'a text message is {{"op": "init" or "close", "sid": ..., "sr": ...}}: {error}') from error
        if asked.op == "init":
            self._sid, self._said, self._answered = asked.sid, [], False
            return Start(dataclasses.replace(self._options, sample_rate=asked.sr))
        if asked.op == "close":
            return End()
        raise bad_data(f"there is no op {asked.op[:20]!r}; there are init and close")

    def opened(self, session: Session) -> Messages:
        return ()

    def heard(self, session: Session) -> Messages:
        return ()

    def event(self, event: Interim | Preflight | Final) -> Messages:
        if isinstance(event, Preflight) or not event.text:
            return ()
        if not self._whole:
            self._answered = isinstance(event, Final) and event.reason == "end"
            return (self._message(event.text, isinstance(event, Final)),)
        text = " ".join([*self._said, event.text])
        if isinstance(event, Final):
            self._said.append(event.text)
        return (self._message(text, False),)

    def ended(self, session: Session) -> Messages:
        return () if self._answered else (self._message(" ".join(self._said), True),)

    def refused(self, error: Refusal) -> Messages:
        fields = {"op": "error", "sid": self._sid, "code": error.code, "message": str(error)}
        return (msgspec.json.encode(fields).decode(),)

    def _message(self, text: str, final: bool) -> str:
        fields = {"op": "interim", "sid": self._sid, "text": text, "final": final, "ts": int(self._clock() * 1000)}
        return msgspec.json.encode(fields).decode()

"""`/`: {"op": "init", "sid", "sr"}, binary PCM, {"op": "close", "sid"}; answers {"op": "interim", "text", "final"}."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import msgspec

from .talk import RATE, Heard


class _Answer(msgspec.Struct):
    op: str = ""
    text: str = ""
    final: bool = False


_decoder = msgspec.json.Decoder(_Answer)


class OpTalk:
    """The first final behind `end` is the last one: such a server leaves the connection open for the next stream."""

    scheme = "Bearer"

    def __init__(self) -> None:
        self.query: Mapping[str, str] = {}
        self.over = False
        self._sid = uuid.uuid4().hex
        self._ended = False

    def begin(self) -> Sequence[str]:
        return (self._message(op="init", sid=self._sid, sr=RATE),)

    def end(self) -> Sequence[str]:
        self._ended = True
        return (self._message(op="close", sid=self._sid),)

    def read(self, message: str) -> Heard | None:
        answer = _decoder.decode(message)
        if answer.op != "interim":
            return None
        self.over = self._ended and answer.final
        return Heard(answer.text, answer.final)

    @staticmethod
    def _message(**fields: object) -> str:
        return msgspec.json.encode(fields).decode()

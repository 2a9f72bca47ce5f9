"""`/ws`: binary PCM, then the text END; answers {"text", "is_final", "timestamp"}, and END as the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .talk import Heard

END = "END"


class _Answer(msgspec.Struct):
    text: str = ""
    is_final: bool = False


_decoder = msgspec.json.Decoder(_Answer)


class WsTalk:
    scheme = "Bearer"

    def __init__(self) -> None:
        self.query: Mapping[str, str] = {}
        self.over = False

    def begin(self) -> Sequence[str]:
        return ()

    def end(self) -> Sequence[str]:
        return (END,)

    def read(self, message: str) -> Heard | None:
        if message == END:
            self.over = True
            return None
        answer = _decoder.decode(message)
        return Heard(answer.text, answer.is_final)

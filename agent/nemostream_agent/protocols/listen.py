"""`/v1/listen`, Deepgram's live API: binary PCM, {"type": "CloseStream"}; answers are Results, Metadata the last.

https://developers.deepgram.com/reference/speech-to-text/listen-streaming
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .talk import RATE, Heard


class _Alternative(msgspec.Struct):
    transcript: str = ""


class _Channel(msgspec.Struct):
    alternatives: list[_Alternative] = []


class _Answer(msgspec.Struct):
    type: str = ""
    is_final: bool = False
    channel: _Channel | list[int] | None = None
    """What is said of speech and utterances names the channel by numbers."""


_decoder = msgspec.json.Decoder(_Answer)


class ListenTalk:
    scheme = "Token"

    def __init__(self) -> None:
        self.query: Mapping[str, str] = {
            "encoding": "linear16",
            "sample_rate": str(RATE),
            "channels": "1",
            "interim_results": "true",
        }
        self.over = False
        self._ended = False

    def begin(self) -> Sequence[str]:
        return ()

    def end(self) -> Sequence[str]:
        self._ended = True
        return ('{"type": "CloseStream"}',)

    def read(self, message: str) -> Heard | None:
        answer = _decoder.decode(message)
        if answer.type == "Metadata":
            self.over = self._ended
        if answer.type != "Results" or not isinstance(answer.channel, _Channel) or not answer.channel.alternatives:
            return None
        return Heard(answer.channel.alternatives[0].transcript, answer.is_final)

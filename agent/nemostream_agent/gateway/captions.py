"""Caption messages: what a room's readers are told, as JSON. On a data channel and as server-sent events alike."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import msgspec

from nemostream.protocol import SAMPLE_RATE, Final, Interim, Word

from .errors import Refusal
from .session import Session


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who publishes into a room; `id` is unique, `name` is what it calls itself."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Message:
    """One of a room's.

    Attributes:
        text: the JSON.
        speaker: whom it is about.
        interim: the next one of the same speaker takes its place.
        final: it is part of the room's history.
    """

    text: str
    speaker: str
    interim: bool = False
    final: bool = False


@dataclass(slots=True)
class Captioner:
    """A speaker's events as messages. Texts that say nothing new give none."""

    speaker: Speaker
    session: Session
    _segment: int = 0
    _shown: str = ""

    def message(self, event: Interim | Final) -> Message | None:
        final = isinstance(event, Final)
        if not event.words or (not final and event.text == self._shown):
            return None
        sent = time.time()
        begin, end = event.words[0].start_sample, event.words[-1].end_sample
        delay, age = self.session.since(end), self.session.since(begin)
        fields: dict[str, Any] = {
            "type": "final" if final else "interim",
            "speaker": self.speaker.id,
            "name": self.speaker.name,
            "segment": f"{self.speaker.id}-{self._segment}",
            "text": event.text,
            "start": _seconds(begin),
            "end": _seconds(end),
            "at": round(self.session.wall_time + begin / SAMPLE_RATE if age is None else sent - age, 3),
            "sent": round(sent, 3),
            "delay_ms": None if delay is None else round(1000 * delay),
        }
        self._shown = event.text
        if isinstance(event, Final):
            fields |= {"words": [_word(word) for word in event.words], "reason": event.reason}
            self._segment += 1
            self._shown = ""
        return Message(_json(fields), self.speaker.id, interim=not final, final=final)


def room(name: str, you: str | None, speakers: list[Speaker]) -> str:
    """The first message to each reader."""
    return _json({"type": "room", "room": name, "you": you, "speakers": [_who(s) for s in speakers]})


def joined(speaker: Speaker) -> Message:
    return Message(_json({"type": "joined", "speaker": speaker.id, "name": speaker.name}), speaker.id)


def left(speaker: Speaker) -> Message:
    return Message(_json({"type": "left", "speaker": speaker.id, "name": speaker.name}), speaker.id)


def lost(speaker: Speaker, start_sample: int, samples: int) -> Message:
    """Audio that never came."""
    times = {"start": _seconds(start_sample), "seconds": _seconds(samples)}
    return Message(_json({"type": "lost", "speaker": speaker.id, "name": speaker.name, **times}), speaker.id)


def failed(speaker: Speaker, error: Refusal) -> Message:
    """The speaker's stream has ended because of `error`."""
    told = {"code": error.code, "message": str(error)}
    return Message(_json({"type": "failed", "speaker": speaker.id, "name": speaker.name, **told}), speaker.id)


def _word(word: Word) -> dict[str, Any]:
    times = {"start": _seconds(word.start_sample), "end": _seconds(word.end_sample)}
    return {"text": word.text, **times, "confidence": round(word.confidence, 3)}


def _seconds(samples: int) -> float:
    return round(samples / SAMPLE_RATE, 3)


def _who(speaker: Speaker) -> dict[str, str]:
    return {"id": speaker.id, "name": speaker.name}


def _json(fields: dict[str, Any]) -> str:
    return msgspec.json.encode(fields).decode()

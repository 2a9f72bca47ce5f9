"""Finals in the formats of OpenAI's transcriptions: json, text, srt, verbose_json, vtt, and events of a stream."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from nemostream import subtitles
from nemostream.protocol import SAMPLE_RATE, Final

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]
FORMATS: tuple[Format, ...] = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("segment", "word")


class Usage(BaseModel):
    type: Literal["duration"] = "duration"
    seconds: float


class Transcription(BaseModel):
    """json."""

    text: str
    usage: Usage


class VerboseSegment(BaseModel):
    """`avg_logprob`: of the words' confidences. `seek`, `tokens`, `temperature` and `no_speech_prob` mean nothing here;
    clients look for them."""

    id: int
    start: float
    end: float
    text: str
    avg_logprob: float
    compression_ratio: float
    seek: int = 0
    tokens: list[int] = []
    temperature: float = 0.0
    no_speech_prob: float = 0.0


class VerboseWord(BaseModel):
    word: str
    start: float
    end: float


class VerboseTranscription(BaseModel):
    """verbose_json. `segments` and `words` only where timestamp_granularities names them."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    text: str
    usage: Usage
    segments: list[VerboseSegment] | None = None
    words: list[VerboseWord] | None = None


def text_of(finals: Sequence[Final]) -> str:
    return " ".join(final.text for final in finals)


def formatted(
    form: Format, finals: Sequence[Final], seconds: float, language: str, granularities: Sequence[str]
) -> tuple[str, str]:
    """The body of an answer, and its media type. `finals`: those with words."""
    text, usage = text_of(finals), Usage(seconds=math.ceil(seconds))
    if form == "json":
        return Transcription(text=text, usage=usage).model_dump_json(), "application/json"
    if form == "verbose_json":
        verbose = VerboseTranscription(language=language, duration=round(seconds, 3), text=text, usage=usage)
        if "segment" in granularities:
            verbose.segments = [_segment(i, final) for i, final in enumerate(finals)]
        if "word" in granularities:
            verbose.words = [
                VerboseWord(word=w.text, start=_at(w.start_sample), end=_at(w.end_sample))
                for f in finals
                for w in f.words
            ]
        return verbose.model_dump_json(exclude_none=True), "application/json"
    cues = [cue for final in finals for cue in subtitles.cues(final.words)]
    if form == "srt":
        return "\n".join(subtitles.srt(i, cue) for i, cue in enumerate(cues, 1)), "application/x-subrip"
    if form == "vtt":
        return "\n".join(["WEBVTT\n", *(subtitles.vtt(cue) for cue in cues)]), "text/vtt"
    return text + "\n", "text/plain"


def event(**fields: Any) -> bytes:
    """A server-sent one."""
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


def _segment(number: int, final: Final) -> VerboseSegment:
    data = final.text.encode()
    return VerboseSegment(
        id=number,
        start=_at(final.words[0].start_sample),
        end=_at(final.words[-1].end_sample),
        text=final.text,
        avg_logprob=sum(math.log(max(w.confidence, 1e-6)) for w in final.words) / len(final.words),
        compression_ratio=len(data) / len(zlib.compress(data)),
    )


def _at(sample: int) -> float:
    return round(sample / SAMPLE_RATE, 3)

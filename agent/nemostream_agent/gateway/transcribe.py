"""POST /transcribe: a sound file as a form or as JSON; its text, words and times come back when all is said."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from nemostream.protocol import SAMPLE_RATE, Final, Word

from .access import Caller
from .answers import Told, refusals
from .form import received
from .query import stream_options
from .status import Serving
from .upload import transcribing

router = APIRouter(tags=["uploads"])

_TEXT = {"type": "string"}
_FIELDS = {
    "language": _TEXT,
    "chunk_ms": {"type": "integer", "minimum": 0, "description": "default: the largest of the model"},
    "keyterms": {"type": "array", "items": _TEXT, "description": "names and phrases to favour"},
    "model": _TEXT,
    "decoder": {"enum": ["rnnt", "ctc"]},
    "endpointing_ms": {"type": "integer", "minimum": 0, "description": "silence that ends a segment, 0 for none"},
}
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}, **_FIELDS},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["audio"],
                "properties": {"audio": {"type": "string", "format": "byte", "description": "base64"}, **_FIELDS},
            }
        },
    },
}


class SpokenWord(BaseModel):
    """Times in seconds; `confidence` in 0..1."""

    text: str
    start: float
    end: float
    confidence: float


class Segment(BaseModel):
    """What was said up to a pause."""

    text: str
    start: float
    end: float
    words: list[SpokenWord]


class Transcript(BaseModel):
    """`duration`: of the audio that was heard, and `processing_time`: that it took; seconds."""

    text: str
    words: list[SpokenWord]
    segments: list[Segment]
    duration: float
    processing_time: float
    language: str
    model: str


@router.post(
    "/transcribe",
    response_model=Transcript,
    openapi_extra={"requestBody": BODY},
    responses=refusals(Told, 400, 401, 408, 413, 415, 422, 429, 503),
)
async def transcribe(request: Request, service: Serving, who: Caller) -> Response:
    """WAV, FLAC, MP3, Ogg, WebM, MP4 and their kin, at any rate, mono or stereo. A video's sound counts."""
    service.house.check(who)  # before the upload, not behind it
    async with received(request, service.settings.limits.idle_seconds) as form:
        began = time.monotonic()
        options = stream_options(form.fields)
        async with transcribing(
            service, request, form.file, options, who, "transcribe", service.settings.clip
        ) as upload:
            segments = [_segment(event) async for event in upload if isinstance(event, Final) and event.words]
    transcript = Transcript(
        text=" ".join(segment.text for segment in segments),
        words=[word for segment in segments for word in segment.words],
        segments=segments,
        duration=round(upload.seconds, 3),
        processing_time=round(time.monotonic() - began, 3),
        language=upload.language,
        model=upload.model,
    )
    return Response(transcript.model_dump_json(), media_type="application/json")


def _segment(final: Final) -> Segment:
    words = [_word(word) for word in final.words]
    return Segment(text=final.text, start=words[0].start, end=words[-1].end, words=words)


def _word(word: Word) -> SpokenWord:
    return SpokenWord(
        text=word.text,
        start=round(word.start_sample / SAMPLE_RATE, 3),
        end=round(word.end_sample / SAMPLE_RATE, 3),
        confidence=round(word.confidence, 4),
    )

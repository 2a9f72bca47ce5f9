"""OpenAI's HTTP API: POST /v1/audio/transcriptions, and GET /v1/models."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from nemostream.protocol import Final

from .access import Caller
from .answers import OpenAITold, body, refusals
from .errors import POLICY, Refusal, bad_request
from .form import received
from .openai_formats import (
    FORMATS,
    GRANULARITIES,
    Format,
    Transcription,
    VerboseTranscription,
    event,
    formatted,
    text_of,
)
from .query import MAX_TEXT, choice, stream_options
from .service import DEFAULT, Service
from .settings import StreamOptions
from .status import Serving
from .upload import Upload, transcribing

router = APIRouter(prefix="/v1", tags=["OpenAI"])

THEIRS = re.compile(r"whisper-\S+|gpt-\S*(transcribe|audio)\S*|default|")
"""Models of that service, which mean the gateway's first one."""
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""A proxy is to pass events on as they come."""

_TEXT = {"type": "string"}
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "model": {**_TEXT, "description": "one of GET /v1/models; OpenAI's names mean the default"},
                    "language": _TEXT,
                    "prompt": {**_TEXT, "description": "without effect"},
                    "keywords[]": {"type": "array", "items": _TEXT, "description": "names and phrases to favour"},
                    "response_format": {"enum": list(FORMATS), "default": "json"},
                    "temperature": {"type": "number", "minimum": 0, "maximum": 1, "description": "without effect"},
                    "timestamp_granularities[]": {"type": "array", "items": {"enum": list(GRANULARITIES)}},
                    "stream": {"type": "boolean", "default": False},
                    "chunk_ms": {"type": "integer", "minimum": 0, "description": "default: the largest of the model"},
                    "decoder": {"enum": ["rnnt", "ctc"]},
                },
            }
        }
    },
}
CONTENT = {
    "text/plain": {"schema": _TEXT},
    "application/x-subrip": {"schema": _TEXT},
    "text/vtt": {"schema": _TEXT},
    "text/event-stream": {"schema": {"type": "object", "required": ["data"], "properties": {"data": _TEXT}}},
}


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "nemostream"


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for."""

    options: StreamOptions
    form: Format
    granularities: tuple[str, ...]
    stream: bool

    @classmethod
    def of(cls, fields: QueryParams) -> Wanted:
        """Raises Refusal: one that is known has a value that means nothing. `prompt` and others have no effect."""
        form = cast(Format, choice(fields, "response_format", FORMATS) or "json")
        stream = choice(fields, "stream", ("true", "false", "True", "False", "1", "0")) in ("true", "True", "1")
        if stream and form not in ("json", "text"):
            raise bad_request(f"a stream is of events, not {form}; leave response_format or stream away")
        asked = (*fields.getlist("timestamp_granularities[]"), *fields.getlist("timestamp_granularities"))
        for one in asked:
            if one not in GRANULARITIES:
                raise bad_request(f"timestamp_granularities[] is segment or word, not {one[:MAX_TEXT]!r}")
        _check_temperature(fields.get("temperature"))
        terms = (*fields.getlist("keywords[]"), *fields.getlist("keywords"))
        options = stream_options(fields)
        if options.model is not None and THEIRS.fullmatch(options.model):
            options = dataclasses.replace(options, model=None)
        keyterms = tuple(dict.fromkeys((*options.keyterms, *(t.strip() for t in terms if t.strip()))))
        return cls(dataclasses.replace(options, keyterms=keyterms), form, asked or ("segment",), stream)


@router.post(
    "/audio/transcriptions",
    response_model=Transcription | VerboseTranscription,
    openapi_extra={"requestBody": BODY},
    responses={
        200: {"description": "In the format that was asked for.", "content": CONTENT},
        **refusals(OpenAITold, 400, 401, 408, 413, 415, 429, 503),
    },
)
async def transcriptions(request: Request, service: Serving, who: Caller) -> Response:
    """OpenAI's endpoint of that name. With stream=true there are server-sent events while the file is transcribed."""
    service.house.check(who)  # before the upload, not behind it
    async with AsyncExitStack() as stack:
        form = await stack.enter_async_context(received(request, service.settings.limits.idle_seconds, json=False))
        wanted = Wanted.of(form.fields)
        upload = await stack.enter_async_context(
            transcribing(service, request, form.file, wanted.options, who, "openai")
        )
        if wanted.stream:
            return _Stream(_events(upload, service), stack.pop_all())
        finals = [event async for event in upload if isinstance(event, Final) and event.words]
    content, media_type = formatted(wanted.form, finals, upload.seconds, upload.language, wanted.granularities)
    return Response(content, media_type=media_type)


@router.get("/models", responses=refusals(OpenAITold, 401))
async def models(service: Serving, who: Caller) -> Models:
    return Models(data=[Model(id=name) for name in service.settings.models or (DEFAULT,)])


@router.get("/models/{model:path}", responses={**refusals(OpenAITold, 401, 404), 422: {"model": OpenAITold}})
async def model(model: str, service: Serving, who: Caller) -> Model:
    """OpenAI's names are found too."""
    if model not in service.settings.models and not (model and THEIRS.fullmatch(model)):
        raise Refusal(404, POLICY, "model_not_found", f"there is no model {model[:MAX_TEXT]!r} here")
    return Model(id=model)


class _Stream(StreamingResponse):
    """Events; whatever becomes of them, the upload ends with the answer."""

    def __init__(self, events: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        super().__init__(events, headers=STREAM_HEADERS, media_type="text/event-stream")
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _events(upload: Upload, service: Service) -> AsyncIterator[bytes]:
    """A delta for each final, then the whole text; an error where it did not come to that."""
    finals: list[Final] = []
    try:
        async for said in upload:
            if isinstance(said, Final) and said.words:
                finals.append(said)
                yield event(type="transcript.text.delta", delta=said.text if len(finals) == 1 else f" {said.text}")
        yield event(type="transcript.text.done", text=text_of(finals))
    except Refusal as error:
        service.metrics.refused(error.code)
        yield event(**body(error, "/v1/audio/transcriptions"))


def _check_temperature(given: str | None) -> None:
    """Raises Refusal."""
    try:
        right = given in (None, "") or 0.0 <= float(cast(Any, given)) <= 1.0
    except ValueError:
        right = False
    if not right:
        raise bad_request(f"temperature is a number from 0 to 1, not {str(given)[:MAX_TEXT]!r}")

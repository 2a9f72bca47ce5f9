"""POST /v1/listen as Deepgram's API for recorded audio has it: the file is the body; one answer when all is said."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from nemostream.protocol import Final

from .access import Caller
from .answers import Told, refusals
from .errors import POLICY, Refusal
from .form import body
from .listen_query import flag, listen_options
from .listen_results import alternative, metadata, seconds
from .status import Serving
from .upload import transcribing

router = APIRouter(tags=["uploads"])

_PARAMETERS = {
    "model": {"type": "string"},
    "language": {"type": "string"},
    "detect_language": {"enum": ["true", "false"]},
    "utterances": {"enum": ["true", "false"]},
    "keyterm": {"type": "array", "items": {"type": "string"}},
}
DOCUMENTED = {
    "parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in _PARAMETERS.items()],
    "requestBody": {"required": True, "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}},
}


@router.post("/v1/listen", openapi_extra=DOCUMENTED, responses=refusals(Told, 400, 401, 408, 413, 415, 429, 503))
async def listen(request: Request, service: Serving, who: Caller) -> Response:
    """Any sound file; it says itself what it is. An address of one, as JSON, is not fetched."""
    service.house.check(who)  # before the upload, not behind it
    query = request.query_params
    options, detect, utterances = listen_options(query), flag(query, "detect_language"), flag(query, "utterances")
    if request.headers.get("content-type", "").startswith("application/json"):
        raise Refusal(415, POLICY, "content_type", "this gateway fetches no addresses; send the sound file as the body")
    created, sha256 = time.time(), hashlib.sha256()
    async with body(request, service.settings.limits.idle_seconds, sha256.update) as file:
        async with transcribing(service, request, file, options, who, "listen") as upload:
            finals = [event async for event in upload if isinstance(event, Final) and event.words]
    words = [word for final in finals for word in final.words]
    channel: dict[str, Any] = {"alternatives": [alternative(" ".join(final.text for final in finals), words)]}
    if detect:
        channel["detected_language"] = upload.language
    results: dict[str, Any] = {"channels": [channel]}
    if utterances:
        results["utterances"] = [_utterance(final) for final in finals]
    name, digest, request_id = options.model, sha256.hexdigest(), request.scope["request_id"]
    about = metadata(request_id, name, upload.bundle, digest, created, upload.seconds, channels=1)
    return Response(msgspec.json.encode({"metadata": about, "results": results}), media_type="application/json")


def _utterance(final: Final) -> dict[str, Any]:
    start, end = seconds(final.start_sample), seconds(final.end_sample)
    return {"start": start, "end": end, "channel": 0, **alternative(final.text, final.words)}

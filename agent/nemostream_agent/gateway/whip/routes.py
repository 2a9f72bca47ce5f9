"""The HTTP of WHIP (RFC 9725): POST an offer, PATCH candidates, DELETE the session."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from ..access import Caller
from ..answers import Told, refusals
from ..errors import Refusal, bad_request, too_big
from ..query import stream_options
from .offer import read_fragment, read_offer
from .publication import Publication
from .sessions import Sessions

router = APIRouter(tags=["WHIP"])

BODY_BYTES = 64 << 10
ROOM = re.compile(r"[A-Za-z0-9._-]{1,64}")
NAME_LENGTH = 64
SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"


async def sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


Serving = Annotated[Sessions, Depends(sessions_of)]


async def room_name(room: str) -> str:
    """
    Raises:
        Refusal: it is no name of a room.
    """
    if not ROOM.fullmatch(room):
        raise bad_request("a room's name is 1 to 64 letters, digits, dots, dashes or underscores")
    return room


Room = Annotated[str, Depends(room_name)]


@router.post(
    "/whip/{room}",
    status_code=201,
    response_class=Response,
    openapi_extra={"requestBody": {"required": True, "content": {SDP: {"schema": {"type": "string"}}}}},
    responses={
        201: {"content": {SDP: {}}, "headers": {"Location": {"schema": {"type": "string"}}}},
        **refusals(Told, 400, 401, 413, 415, 429, 503),
    },
)
async def publish(request: Request, room: Room, who: Caller, sessions: Serving, name: str = "") -> Response:
    """Publish an Opus track into a room. The body is an SDP offer; the answer's Location is the session. The query
    takes name, model, chunk_ms, language, decoder, keyterms and endpointing_ms."""
    offer = read_offer(await _text(request, SDP))
    options = stream_options(request.query_params)
    shown = " ".join(name.split())[:NAME_LENGTH] or "someone"
    identity, answer = await sessions.open(who, room, shown, offer, options)
    path = request.scope.get("root_path", "") + f"/whip/{room}/{identity}"
    response = Response(answer, 201, {"Location": path, "ETag": f'"{identity[:8]}"'}, SDP)
    for link in sessions.ice.links(who):
        response.headers.append("Link", link)
    return response


@router.patch(
    "/whip/{room}/{session}",
    status_code=204,
    response_class=Response,
    openapi_extra={"requestBody": {"required": True, "content": {FRAGMENT: {"schema": {"type": "string"}}}}},
    responses=refusals(Told, 400, 404, 413, 415, 422),
)
async def trickle(request: Request, room: Room, session: str, sessions: Serving) -> Response:
    """Add ICE candidates. The session's address is the credential."""
    publication = _found(sessions, session)
    publication.add_candidates(read_fragment(await _text(request, FRAGMENT), publication.username))
    return Response(status_code=204)


@router.delete("/whip/{room}/{session}", response_class=Response, responses=refusals(Told, 400, 404))
async def leave(room: Room, session: str, sessions: Serving) -> Response:
    """End the session. What was said becomes final before the answer comes."""
    await _found(sessions, session).end()
    return Response(status_code=200)


def _found(sessions: Sessions, identity: str) -> Publication:
    if (publication := sessions.get(identity)) is None:
        raise Refusal(404, 0, "not_found", "there is no such session; it may have ended")
    return publication


async def _text(request: Request, kind: str) -> str:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise Refusal(415, 0, "content_type", f"the body must be {kind}, not {given[:80] or 'without a type'}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            raise too_big(f"the body is larger than {BODY_BYTES} bytes, the limit")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise bad_request("the body is not UTF-8 text") from None

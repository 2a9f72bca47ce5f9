"""GET /rooms/{room}/captions: a room's captions as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from .access import Caller
from .answers import Told, refusals
from .errors import bad_request
from .rooms import Rooms
from .whip.routes import Room

router = APIRouter(tags=["rooms"])

COMMENT_SECONDS = 15.0
"""Between two signs of life where nobody speaks: proxies cut what is silent, and so it shows that a reader is gone."""
RETRY_MS = 1000
"""After which a browser connects again."""


@router.get(
    "/rooms/{room}/captions",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **refusals(Told, 400, 401, 503)},
)
async def captions(request: Request, room: Room, who: Caller) -> StreamingResponse:
    """Who is there, what was said, and from then on what is being said. Finals have ids: Last-Event-ID goes on behind
    that one, as browsers do by themselves."""
    rooms: Rooms = request.app.state.rooms
    last = request.headers.get("last-event-id", "")
    if last and not (last.isascii() and last.isdigit() and len(last) < 20):
        raise bad_request("Last-Event-ID is the id of an event of this room")
    events = _events(rooms, room, int(last) if last else None)
    # The first one now: whether there is a place is the answer's status.
    first = await anext(events)

    async def all_of_them() -> AsyncGenerator[str]:
        try:
            yield first
            async for event in events:
                yield event
        finally:
            await events.aclose()

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(all_of_them(), media_type="text/event-stream", headers=headers)


async def _events(rooms: Rooms, room: str, after: int | None) -> AsyncGenerator[str]:
    with rooms.reading(room, after=after) as reader:
        yield f"retry: {RETRY_MS}\n\n"
        while True:
            try:
                number, text = await asyncio.wait_for(anext(reader), COMMENT_SECONDS)
            except TimeoutError:
                yield ":\n\n"
            except StopAsyncIteration:
                return
            else:
                yield f"data: {text}\n\n" if number is None else f"id: {number}\ndata: {text}\n\n"

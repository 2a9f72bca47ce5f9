"""POST /livekit/token: an access token for a page that joins a LiveKit room, as a participant or as a mere viewer."""

from __future__ import annotations

import datetime
import secrets

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from livekit import api

from .access import Caller
from .answers import Told, refusals
from .errors import Refusal
from .settings import LiveKitRooms, Settings

router = APIRouter(tags=["rooms"])

VALID = datetime.timedelta(hours=1)
"""A token is needed when a room is joined; who is in it stays. (The page asks for another when it joins again.)"""


class Wanted(BaseModel):
    room: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    name: str = Field("", max_length=64, description="as others see it")
    viewer: bool = Field(False, description="hidden, and may not publish")


class Token(BaseModel):
    url: str = Field(description="of the LiveKit server")
    token: str


@router.post("/livekit/token", responses=refusals(Told, 400, 401, 404))
async def token(request: Request, wanted: Wanted, who: Caller) -> Token:
    """The identity is the name and something random: two of one name do not throw each other out."""
    settings: Settings = request.app.state.service.settings
    if settings.rooms is None:
        raise Refusal(404, 0, "not_found", "this gateway has no LiveKit server; start it with --livekit-url")
    return Token(url=settings.rooms.url, token=_token(settings.rooms, wanted))


def _token(rooms: LiveKitRooms, wanted: Wanted) -> str:
    name = " ".join(wanted.name.split()) or ("viewer" if wanted.viewer else "someone")
    grants = api.VideoGrants(
        room_join=True,
        room=wanted.room,
        can_publish=not wanted.viewer,
        can_publish_data=not wanted.viewer,
        can_subscribe=True,
        hidden=wanted.viewer,
    )
    access = api.AccessToken(rooms.key, rooms.secret).with_identity(f"{name}-{secrets.token_hex(3)}")
    return access.with_name(name).with_ttl(VALID).with_grants(grants).to_jwt()

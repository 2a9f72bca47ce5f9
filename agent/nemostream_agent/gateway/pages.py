"""The pages that users look at, as web_demo builds them, and what they need to know: GET /config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel, Field
from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemostream import wire

from .access import Caller
from .answers import Told, refusals
from .service import Service
from .settings import Settings

router = APIRouter(tags=["pages"])

FOLDER = Path(__file__).with_name("pages")
"""Made by `make pages`; part of the wheel."""


class Config(BaseModel):
    livekit: bool = Field(description="LiveKit rooms can be joined: POST /livekit/token")
    livekit_url: str | None
    ice_servers: list[dict[str, Any]] = Field(description="RTCConfiguration.iceServers")
    model: str | None = Field(description="that streams get which ask for none")
    max_streams: int
    version: str


@router.get("/config.json", responses=refusals(Told, 401))
async def config(request: Request, who: Caller) -> Config:
    """What the pages of this gateway can do."""
    service: Service = request.app.state.service
    settings = service.settings
    found = await service.look()
    model = found.model(service.model(None)) if found else None
    return Config(
        livekit=settings.rooms is not None,
        livekit_url=settings.rooms.url if settings.rooms else None,
        ice_servers=settings.ice.for_browsers(who),
        model=model.name if model else None,
        max_streams=settings.limits.hard,
        version=wire.package(),
    )


def install(app: FastAPI, settings: Settings) -> None:
    """Each page and file at its own path, and not one mount for all that is left: that would answer for other paths
    too, with 404 where their method is not allowed."""
    for found in FOLDER.iterdir() if FOLDER.is_dir() else ():
        if found.is_dir():
            app.mount(f"/{found.name}", _Policed(StaticFiles(directory=found, html=True), settings))
        else:
            path = "/" if found.name == "index.html" else f"/{found.name}"
            app.router.routes.append(Route(path, _Policed(_File(found), settings), methods=["GET"]))


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await FileResponse(self._path)(scope, receive, send)


class _Policed:
    """A page runs our scripts alone, and talks to this gateway and its LiveKit server alone."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        places = ["'self'"]
        if settings.rooms is not None:
            host = urlsplit(settings.rooms.url).netloc
            places += [f"{scheme}://{host}" for scheme in ("ws", "wss", "http", "https")]
        policy = {
            "default-src": "'self'",
            "connect-src": " ".join(places),
            "img-src": "'self' data:",
            "media-src": "'self' blob:",
            "object-src": "'none'",
            "base-uri": "'none'",
        }
        self._headers = {
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def policed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                # Names of assets hold a hash of what is in them; pages are asked for again.
                hashed = "/assets/" in scope["path"]
                headers["Cache-Control"] = "public, max-age=31536000, immutable" if hashed else "no-cache"
            await send(message)

        await self._app(scope, receive, policed)

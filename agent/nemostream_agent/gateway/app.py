"""The gateway as an ASGI application: create_app(Settings()) for any server; cli.py runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from nemostream import wire

from . import answers, livekit_tokens, pages, recorded, room_events, sockets, status, transcribe, transcriptions
from .auth import Auth
from .middleware import BodyLimit, RequestId
from .rooms import Rooms
from .service import Service
from .settings import Settings
from .whip import routes as whip
from .whip.sessions import Sessions

if TYPE_CHECKING:
    from nemostream.registry import AnyEngine

EXPOSED = ("Location", "ETag", "Link", "Retry-After", "X-Request-Id")
"""Headers that pages of other origins may read."""


def create_app(settings: Settings, engine: AnyEngine | None = None) -> FastAPI:
    """`engine`: another than the machine's, which the caller owns.

    Raises:
        KeysError: the file of API keys cannot be used.
    """
    service, auth = Service(settings, engine), Auth.of(settings)
    rooms = Rooms(settings.limits.readers)
    sessions = Sessions(service, rooms, settings.ice, settings.limits.setup_seconds)

    async def close_rooms() -> None:
        await service.over.wait()
        rooms.end()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        closing = asyncio.create_task(close_rooms(), name="gateway.close-rooms")
        yield
        closing.cancel()
        service.close()

    app = FastAPI(
        title="nemostream gateway",
        summary="Streaming speech-to-text over HTTP and WebSocket",
        version=wire.package(),
        lifespan=lifespan,
        # Its own spans would hold the whole query, which may hold a key (tracing.py has ours).
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.service, app.state.auth = service, auth
    app.state.rooms, app.state.sessions = rooms, sessions

    answers.install(app, service.metrics)
    for module in (sockets, status, transcribe, transcriptions, recorded, whip, room_events, livekit_tokens, pages):
        app.include_router(module.router)
    pages.install(app, settings)
    app.add_middleware(BodyLimit, limit=settings.limits.upload_bytes)
    app.add_middleware(RequestId)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "If-Match", "Last-Event-ID"],
            expose_headers=EXPOSED,
        )
    return app

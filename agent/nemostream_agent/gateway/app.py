"""The gateway as an ASGI application: create_app(Settings()) for any server; cli.py runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from nemostream import wire

from . import answers, recorded, sockets, status, transcribe, transcriptions
from .auth import Auth
from .middleware import BodyLimit, RequestId
from .service import Service
from .settings import Settings

if TYPE_CHECKING:
    from nemostream.registry import AnyEngine


def create_app(settings: Settings, engine: AnyEngine | None = None) -> FastAPI:
    """`engine`: another than the machine's, which the caller owns.

    Raises:
        KeysError: the file of API keys cannot be used.
    """
    service, auth = Service(settings, engine), Auth.of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
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

    answers.install(app, service.metrics)
    for module in (sockets, status, transcribe, transcriptions, recorded):
        app.include_router(module.router)
    app.add_middleware(BodyLimit, limit=settings.limits.upload_bytes)
    app.add_middleware(RequestId)
    return app

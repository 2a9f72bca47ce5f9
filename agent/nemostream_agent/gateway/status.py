"""GET /health and GET /metrics: what the gateway and its engine are doing."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from nemostream.errors import NemostreamError

from .service import Service

router = APIRouter(tags=["status"])
ENGINE_SECONDS = 2.0
"""An engine that takes longer to answer is not well."""


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(service_of)]


@router.get("/metrics", response_class=Response)
async def metrics(service: Serving) -> Response:
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/health")
async def health(service: Serving, response: Response) -> dict[str, Any]:
    """503 while the model is being loaded, while the engine does not answer, and once the gateway is going to end."""
    state = "draining" if service.draining.is_set() else "ok" if service.ready else "starting"
    figures = await engine_figures(service)
    if state == "ok" and figures is None:
        state = "no engine"
    if state != "ok":
        response.status_code = 503
    house = service.house
    return {
        "status": state,
        "detail": service.failure if state == "starting" else "",
        "active_streams": house.open,
        "capacity": {"soft": house.limits.soft, "hard": house.limits.hard, "crowded": house.crowded},
        "engine": figures,
    }


async def engine_figures(service: Service) -> dict[str, float] | None:
    """None: it does not answer."""
    if not service.ready:
        return None  # asking would wait for the engine's process
    try:
        return await asyncio.wait_for(asyncio.to_thread(service.engine.stats), ENGINE_SECONDS)
    except (NemostreamError, asyncio.TimeoutError):
        return None

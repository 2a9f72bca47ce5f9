"""GET /health and GET /metrics: what the gateway and its engine do. They need no key; a proxy keeps them inside."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from .service import Service

router = APIRouter(tags=["status"])


class Memory(BaseModel):
    used_bytes: int = Field(description="that the engine's process holds")
    total_bytes: int = Field(description="of the machine")


class Encoder(BaseModel):
    backend: str = Field(description="what computes, and its version", examples=["onnxruntime 1.23.2"])
    precision: str = Field(description="int8, fp32, bf16 or fp16")


class Capacity(BaseModel):
    soft: int = Field(description="streams of this gateway from which it is crowded")
    hard: int = Field(description="streams of this gateway beyond which the next is refused")
    crowded: bool = Field(description="the soft limit is reached: time for another machine")


class EngineLoad(BaseModel):
    """Of the machine's engine, which may have other clients than this gateway."""

    process: int = Field(description="its process id")
    streams: int = Field(description="that hold a row")
    rows: int = Field(description="streams that there are rows for")
    waiting: int = Field(description="files that wait for a row")
    max_batch: int | None = Field(description="streams of one step at most; null: as time allows")
    step_share: float = Field(description="part of the last seconds that steps took")
    predicted_share: float = Field(description="part of the time that live streams will take; at most 0.8 is given out")
    mean_batch: float = Field(description="streams in a step, since its start")


class Health(BaseModel):
    """What is null is not known while the engine does not answer."""

    status: Literal["ok", "starting", "draining", "no engine"]
    detail: str = Field(description="why it is still starting")
    active_streams: int = Field(description="live streams and uploads of this gateway")
    capacity: Capacity
    model: str | None = Field(description="that streams get which ask for none")
    models: list[str] = Field(description="those that are loaded")
    device: str | None = Field(examples=["cpu"])
    processor: str | None
    memory: Memory | None
    encoder: Encoder | None = Field(description="of `model`")
    engine: EngineLoad | None


async def service_of(request: Request) -> Service:
    """(A plain function would be called on a thread.)"""
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(service_of)]


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: Serving) -> Response:
    """Prometheus' text format: the gateway's figures and the engine's."""
    return Response(service.metrics.text(await service.look()), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/health", responses={503: {"model": Health, "description": "No stream should be sent here now."}})
async def health(service: Serving, response: Response) -> Health:
    """503 while the model is being loaded, while the engine does not answer, and once the gateway is going to end."""
    found, house = await service.look(), service.house
    state: Literal["ok", "starting", "draining", "no engine"] = "ok"
    if service.draining.is_set():
        state = "draining"
    elif not service.ready:
        state = "starting"
    elif found is None:
        state = "no engine"
    if state != "ok":
        response.status_code = 503
    model = found.model(service.model(None)) if found else None
    return Health(
        status=state,
        detail=service.failure if state == "starting" else "",
        active_streams=house.open,
        capacity=Capacity(soft=house.limits.soft, hard=house.limits.hard, crowded=house.crowded),
        model=model.name if model else None,
        models=[m.name for m in found.models] if found else [],
        device=found.device if found else None,
        processor=found.processor if found else None,
        memory=Memory(used_bytes=found.memory_bytes, total_bytes=found.memory_total_bytes) if found else None,
        encoder=Encoder(backend=model.backend, precision=model.precision) if model else None,
        engine=None
        if found is None
        else EngineLoad(
            process=found.pid,
            streams=int(found.stats["streams"]),
            rows=int(found.stats["max_streams"]),
            waiting=int(found.stats["waiting"]),
            max_batch=found.max_batch,
            step_share=found.stats["step_share"],
            predicted_share=found.stats["predicted_share"],
            mean_batch=found.stats["mean_batch"],
        ),
    )

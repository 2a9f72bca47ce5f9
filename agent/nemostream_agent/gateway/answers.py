"""What goes wrong, as an answer over HTTP: one sentence, in the shape of the API that was called.

install(app, metrics)                     # every error of an application
answer(too_big("..."), "/v1/audio/transcriptions")
responses = refusals(Told, 400, 413)      # of an endpoint, for the OpenAPI document
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from .errors import Refusal, bad_request, refusal
from .metrics import Metrics

OPENAI = ("/v1/audio/", "/v1/models")
"""Beginnings of the paths of OpenAI's API."""
ABOUT = {
    400: "The request, or the audio in it, cannot be understood.",
    401: "An API key is needed, or this one is not known.",
    404: "There is no such thing here.",
    408: "The upload stopped coming.",
    413: "The upload is larger, or its audio longer, than the gateway takes.",
    415: "The content type is none that is taken here.",
    422: "The audio is shorter or longer than the gateway takes.",
    429: "The client has as many streams as one may have.",
    503: "No stream is free now, or the gateway is starting or ending. Retry-After says when to try again.",
}


class Told(BaseModel):
    """An error."""

    detail: str
    code: str


class OpenAIFault(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAITold(BaseModel):
    """An error, as OpenAI's API tells it."""

    error: OpenAIFault


def answer(error: Refusal, path: str) -> JSONResponse:
    return JSONResponse(body(error, path), error.status, error.headers)


def body(error: Refusal, path: str) -> dict[str, Any]:
    if not path.startswith(OPENAI):
        return {"detail": str(error), "code": error.code}
    kinds = {429: "rate_limit_error", 401: "authentication_error"}
    kind = kinds.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": None, "code": error.code}}


def refusals(told: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of an endpoint."""
    return {status: {"model": told, "description": ABOUT[status]} for status in statuses}


def install(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        metrics.refused(error.code)
        return answer(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return answer(bad_request(f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}"), request.url.path)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        told = Refusal(error.status_code, 0, "not_found" if error.status_code == 404 else "bad_request", error.detail)
        return JSONResponse(body(told, request.url.path), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return answer(refusal(error), request.url.path)

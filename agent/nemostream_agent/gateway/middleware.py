"""Around every request: a bound on its body, an id by which logs and answers name it, and the trace it belongs to."""

from __future__ import annotations

import uuid

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import logs, tracing
from .answers import answer
from .errors import Refusal, too_big


class BodyLimit:
    """A body of more than `limit` bytes is refused with 413: by its announced length, else once it has grown so far."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        refusal = too_big(f"the upload is larger than {self._limit} bytes, the limit")
        if announced.isdigit() and int(announced) > self._limit:
            await _answer(refusal, scope, receive, send, self._limit)
            return
        came, begun = 0, False

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._limit:
                raise refusal
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except Refusal as error:
            if error is not refusal or begun:
                raise
            await _answer(error, scope, receive, send, self._limit)


class RequestId:
    """`scope["request_id"]`, in the log, and the header X-Request-Id of every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope["request_id"] = request_id = str(uuid.uuid4())

        async def named(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message.setdefault("headers", [])
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with logs.named(request_id), tracing.parent(Headers(scope=scope)):
            await self._app(scope, receive, named)


async def _answer(error: Refusal, scope: Scope, receive: Receive, send: Send, most: int) -> None:
    """Many clients read no answer before all is sent, and lose it where the connection is closed before: so `most`
    bytes more are taken and dropped."""
    response = answer(error, scope["path"])
    response.headers["Connection"] = "close"

    async def lingering(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        await send({**message, "more_body": True})
        left, more = most, True
        while more and left > 0:
            came = await receive()
            left, more = left - len(came.get("body", b"")), came.get("more_body", False)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    await response(scope, receive, lingering)

"""The WebSocket endpoints: who is it, what does it ask for, and then its dialect takes over."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from .auth import Auth, subprotocol
from .converse import converse, refuse
from .dialect import Dialect
from .errors import Refusal
from .listen import ListenDialect
from .op import OpDialect
from .query import stream_options
from .service import Service
from .ws import WsDialect

router = APIRouter()


@router.websocket("/ws")
async def ws(socket: WebSocket) -> None:
    await _serve(socket, lambda query: WsDialect(stream_options(query)))


@router.websocket("/")
async def op(socket: WebSocket) -> None:
    await _serve(socket, lambda query: OpDialect(stream_options(query)))


@router.websocket("/v1/listen")
async def listen(socket: WebSocket) -> None:
    await _serve(socket, lambda query: ListenDialect(query, socket.scope["request_id"]))


async def _serve(socket: WebSocket, dialect_of: Callable[[QueryParams], Dialect]) -> None:
    service: Service = socket.app.state.service
    auth: Auth = socket.app.state.auth
    try:
        who = auth.who(socket)
    except Refusal as error:
        service.metrics.refused(error.code)
        # Before the handshake is over there is still HTTP.
        answer = JSONResponse({"detail": str(error)}, error.status, error.headers)
        await socket.send_denial_response(answer)
        return
    await socket.accept(subprotocol(socket), [(b"dg-request-id", socket.scope["request_id"].encode())])
    try:
        dialect = dialect_of(socket.query_params)
    except Refusal as error:
        service.metrics.refused(error.code)
        await refuse(socket, error)
        return
    await converse(socket, dialect, service, who)

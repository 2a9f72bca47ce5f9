"""A gateway in this process, on a real socket, for what its command has no option for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Its ws:// address, once the model is loaded."""
    config = uvicorn.Config(app, port=0, ws="websockets-sansio", log_config=None, ws_ping_interval=None)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())  # not serve(): the signals are pytest's
    async with asyncio.timeout(60):
        while not (server.started and app.state.service.ready):
            await asyncio.sleep(0.01)
    try:
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running

"""Record what the published livekit-plugins-deepgram sends for a clip: python -m tests.gateway.record_deepgram

data/deepgram_client.jsonl: a line for the handshake, then one for each message: a text, or the length of an audio one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import aiohttp
import numpy as np
import websockets

from livekit.plugins import deepgram
from tests.adapter.helpers import push, read_to_end
from tests.gateway.clients import pcm
from tests.gateway.process import GatewayProcess
from tests.gateway.test_deepgram_plugin import RECORDED

CLIP = "music"


async def record(gateway: GatewayProcess) -> list[Any]:
    audio = pcm(CLIP)
    lines: list[Any] = []

    async def between(client: websockets.ServerConnection) -> None:
        assert client.request is not None
        headers = {"Authorization": client.request.headers["Authorization"]}
        digest = hashlib.sha256(audio).hexdigest()
        lines.append({"path": client.request.path, "headers": headers, "clip": CLIP, "sha256": digest})
        async with websockets.connect(gateway.ws + client.request.path) as server:

            async def answers() -> None:
                async for message in server:
                    await client.send(message)
                await client.close()

            answering = asyncio.create_task(answers())
            async for message in client:
                lines.append(message if isinstance(message, str) else len(message))
                await server.send(message)
            await answering

    async with websockets.serve(between, "127.0.0.1", 0) as server, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/listen"
        stream = deepgram.STT(api_key="any", base_url=url, http_session=http, keyterm=["music"]).stream()
        push(stream, np.frombuffer(audio, np.int16), 16_000)
        stream.flush()
        stream.end_input()
        await read_to_end(stream)
    return lines


if __name__ == "__main__":
    with GatewayProcess() as gateway:
        lines = asyncio.run(record(gateway))
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text("".join(json.dumps(line) + "\n" for line in lines))

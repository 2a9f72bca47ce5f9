"""/ws, by a client that knows nothing of ours."""

from __future__ import annotations

import json
import time

import pytest
import websockets

from tests.clips import TEXTS, clip
from tests.gateway.process import GatewayProcess


def pcm(name: str) -> bytes:
    return (clip(name) * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("size", [1, 333, 640, 1 << 20], ids=lambda n: f"{n} bytes a message")
async def test_every_message_has_its_fields_and_the_text_is_that_of_the_clip(
    gateway: GatewayProcess, size: int
) -> None:
    data = pcm("music")[: 20_000 if size == 1 else None]
    before = time.time()
    answers = []
    async with websockets.connect(f"{gateway.ws}/ws") as socket:
        for begin in range(0, len(data), size):
            await socket.send(data[begin : begin + size])
        await socket.send("END")
        async for message in socket:
            answers.append(message)
    assert socket.close_code == 1000
    *texts, end = answers
    assert end == "END"
    found = [json.loads(t) for t in texts]
    for one in found:
        assert set(one) == {"text", "is_final", "timestamp"}
        assert isinstance(one["text"], str) and isinstance(one["is_final"], bool)
        assert before <= one["timestamp"] <= time.time()
    if size > 1:
        assert " ".join(one["text"] for one in found if one["is_final"]) == TEXTS["music"]

"""A gateway and a captioned room of one machine: one engine, one batch, and everybody's own text."""

from __future__ import annotations

import asyncio

import numpy as np

from nemostream.probe import probe
from nemostream.remote import RemoteEngine, Shared
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.participant import RATE
from tests.adapter.helpers import clip, eventually
from tests.clips import TEXTS
from tests.gateway.clients import by_file, pcm, ws
from tests.gateway.process import GatewayProcess
from tests.rooms.captioned import CaptionedRoom, RecordingSTT
from tests.serving import engines_at

CHUNK_MS = 160
CLIENTS = 8


async def test_a_room_and_clients_of_the_gateway_share_the_engine(
    server: LiveKitServer, gateway: GatewayProcess
) -> None:
    data = pcm("music")
    engine = RemoteEngine(Shared(gateway.place, spawn=False))
    stt = RecordingSTT(chunk_ms=CHUNK_MS, engine=engine)
    said = clip("monday", RATE)
    before = probe(gateway.place)
    assert before is not None
    async with CaptionedRoom(server, "gateway", stt) as room:
        speaker = await room.speaker("A")
        clients = [asyncio.create_task(_paced(f"{gateway.ws}/ws?chunk_ms={CHUNK_MS}", data)) for _ in range(CLIENTS)]
        await speaker.say(said.pcm)
        [final] = await room.reader.finals("A")
        texts = await asyncio.gather(*clients)
        await speaker.leave()
        await eventually(lambda: all(stream.ended for stream in stt._streams))
        [recording] = stt.recordings
    after = probe(gateway.place)
    engine.close()
    assert texts == [TEXTS["music"]] * CLIENTS
    # The samples that the room's stream was given, as a file.
    assert final.text == await asyncio.to_thread(by_file, np.concatenate(recording).tobytes(), None, CHUNK_MS)
    assert len(engines_at(gateway.place)) == 1 and after is not None
    calls = after["encoder_calls"] - before["encoder_calls"]
    rows = after["mean_batch"] * after["encoder_calls"] - before["mean_batch"] * before["encoder_calls"]
    assert rows > 2 * calls, "calls serve many streams"


async def _paced(url: str, data: bytes) -> str:
    """As a microphone would: in blocks of 100 ms, at their pace."""
    return (await ws(url, data, 3200, 0.1)).text

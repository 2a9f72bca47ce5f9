"""Two rooms, two job processes of LiveKit's default executor, one engine process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from nemostream.probe import probe
from nemostream.rendezvous import Place
from nemostream_agent.agent_process import AgentProcess
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.participant import RATE
from tests.adapter.helpers import clip, eventually
from tests.rooms.captioned import Reader, Speaker

RUNTIME = "onnxruntime_pybind11"


async def test_two_rooms_share_one_engine(server: LiveKitServer, room_name: str, own_engine: dict[str, str]) -> None:
    """The runtime and its weights are in one process only, and one call serves chunks of both rooms."""
    place = Place(Path(own_engine["NEMOSTREAM_SOCKET"]))
    speech = {"A": clip("monday", RATE), "B": clip("tonight", RATE)}
    async with AgentProcess(server, environment=own_engine) as agent:
        readers, speakers = {}, {}
        for name in speech:
            readers[name] = await Reader.join(server, f"{room_name}-{name}")
            speakers[name] = await Speaker.join(server, f"{room_name}-{name}", name)
        for speaker in speakers.values():
            await speaker.microphone.heard()
        await eventually(lambda: (probe(place) or {}).get("streams") == 2)
        before = probe(place)
        assert before is not None and agent.pid is not None
        family = psutil.Process(agent.pid).children(recursive=True)
        (process,) = (p for p in family if "serve" in p.cmdline())
        process.suspend()  # two streams wait for nobody: only what waits for the engine is sure to be taken together
        try:
            await asyncio.gather(*(speakers[name].say(speech[name].pcm) for name in speech))
        finally:
            process.resume()
        for name in speech:
            await readers[name].reads(name, speech[name].text)
        after = probe(place)
        assert after is not None and after["streams"] == 2
        calls = after["encoder_calls"] - before["encoder_calls"]
        rows = after["mean_batch"] * after["encoder_calls"] - before["mean_batch"] * before["encoder_calls"]
        assert rows > calls, "some call served both rooms"
        family = psutil.Process(agent.pid).children(recursive=True)
        assert [p.pid for p in family if has_runtime(p)] == [process.pid]
        jobs = [p for p in family if p != process and p.memory_full_info().uss > 20 << 20]
        assert len(jobs) >= 2, "a process for each room"
        for name in speech:
            await speakers[name].leave()
            await readers[name].leave()


def has_runtime(process: psutil.Process) -> bool:
    return any(RUNTIME in region.path for region in process.memory_maps())

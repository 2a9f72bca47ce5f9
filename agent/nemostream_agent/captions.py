"""An agent that captions everyone in the rooms it is sent to: `python -m nemostream_agent captions dev|start|connect`.

LiveKit's own command line takes over behind `captions`; LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say where
the server is. NEMOSTREAM_MODEL names another model than the embedded one. NEMOSTREAM_LOAD_THRESHOLD is the load of the
CPU from which `start` takes no more rooms: 0.7 unless it says otherwise.
"""

from __future__ import annotations

import asyncio
import os

from livekit.agents import AgentServer, AutoSubscribe, JobContext, JobProcess

from livekit.plugins import nemo

from .room_captions import RoomCaptions

MOST_LOAD = 0.99
"""LiveKit's server asks no agent whose load is 1, whatever the threshold, and asks for a room but once."""

LINGER = 0.2
"""Seconds between the last caption and the end of the connection: what its data channel still holds is lost with it,
and nothing says when that is empty."""


def load_of(server: AgentServer) -> float:
    return min(MOST_LOAD, nemo.load(server))


# One process waits, with the machine's engine loaded, so that a room has captions at once.
server = AgentServer(num_idle_processes=1, load_fnc=load_of)
if threshold := os.environ.get("NEMOSTREAM_LOAD_THRESHOLD"):
    server.update_options(load_threshold=float(threshold))


def load(process: JobProcess) -> None:
    """In each job process before its job: the engine loads the model while nobody waits."""
    model = os.environ.get("NEMOSTREAM_MODEL")
    stt = process.userdata["stt"] = nemo.STT(model=model) if model else nemo.STT()
    stt.prewarm()


server.setup_fnc = load


async def finish(ctx: JobContext) -> None:
    """What was said becomes captions; a shutdown callback would come too late, behind the end of the room."""
    captions: RoomCaptions | None = ctx.proc.userdata.get("captions")
    if captions is not None:
        await captions.aclose()
        await asyncio.sleep(LINGER)
    stt: nemo.STT = ctx.proc.userdata["stt"]
    await stt.aclose()


@server.rtc_session(on_session_end=finish)
async def caption_room(ctx: JobContext) -> None:
    ctx.proc.userdata["captions"] = RoomCaptions(ctx.room, ctx.proc.userdata["stt"])
    await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)

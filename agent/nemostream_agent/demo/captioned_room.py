"""A LiveKit room in which the captions agent is already, so that the first word that is said there is captioned."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp

from livekit import api, rtc

from ..livekit_server import LiveKitServer
from ..participant import join
from . import DemoError

REQUESTS, REQUEST_S = 4, 15.0
"""LiveKit's server sends an agent to a room but once, and gives up when it has not answered for ten seconds, as on a
machine that is busy with starting everything at once. Later than that nobody answers twice."""


@asynccontextmanager
async def captioned_room(server: LiveKitServer, name: str) -> AsyncIterator[None]:
    """The agent is sent to a room when somebody joins it: a silent participant does, and waits for the agent.

    Raises:
        DemoError: it does not come.
    """
    room, here = rtc.Room(), asyncio.Event()

    def look(participant: rtc.RemoteParticipant) -> None:
        if participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT:
            here.set()

    room.on("participant_connected", look)
    await join(server, name, "usher", room=room)
    try:
        for participant in room.remote_participants.values():
            look(participant)
        await _wait(here, server, name)
        yield
    finally:
        await room.disconnect()


async def _wait(here: asyncio.Event, server: LiveKitServer, name: str) -> None:
    """Until an agent is there; a room whose request nobody took asks again."""
    # The development server's secret is as short as it is known.
    warnings.filterwarnings("ignore", "The HMAC key is")
    jobs: list[str] = []
    async with api.LiveKitAPI(server.url, server.key, server.secret) as livekit:
        for request in range(REQUESTS):
            try:
                if request:
                    jobs = _jobs(await livekit.agent_dispatch.list_dispatch(name))
                    if not jobs:
                        await livekit.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(room=name))
            except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
                raise DemoError(f"the LiveKit server does not say where the captions agent is: {error}") from None
            with suppress(TimeoutError):
                await asyncio.wait_for(here.wait(), REQUEST_S)
                return
    raise DemoError(f"the captions agent has not joined the room within {REQUESTS * REQUEST_S:g} s, its jobs: {jobs}.")


def _jobs(sent: Sequence[api.AgentDispatch]) -> list[str]:
    """What has become of them, but for those that failed."""
    states = [job.state.status for dispatch in sent for job in dispatch.state.jobs]
    return [api.JobStatus.Name(state) for state in states if state != api.JobStatus.JS_FAILED]

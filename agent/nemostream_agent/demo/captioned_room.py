"""A LiveKit room in which the captions agent is already, so that the first word that is said there is captioned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from livekit import rtc

from ..livekit_server import LiveKitServer
from ..participant import join
from . import DemoError

SECONDS = 30.0


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
        await asyncio.wait_for(here.wait(), SECONDS)
        yield
    except TimeoutError:
        raise DemoError(f"the captions agent has not joined the room within {SECONDS:g} s.") from None
    finally:
        await room.disconnect()

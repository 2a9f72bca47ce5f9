"""The captions agent as its own process, started by the documented command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import psutil

from livekit import api
from nemostream_agent.agent_process import AgentProcess
from nemostream_agent.demo.captioned_room import captioned_room
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.participant import RATE, Caption
from tests.adapter.helpers import clip
from tests.rooms.captioned import Reader, Speaker


async def test_it_captions_a_room_and_leaves_no_process_behind(
    server: LiveKitServer, room_name: str, own_engine: dict[str, str]
) -> None:
    speech = clip("monday", RATE)
    async with AgentProcess(server, environment=own_engine) as agent:
        reader = await Reader.join(server, room_name)
        speaker = await Speaker.join(server, room_name, "A")
        await speaker.microphone.heard()
        await speaker.say(speech.pcm)
        await reader.reads("A", speech.text)
        await speaker.leave()
        await reader.leave()
        assert agent.pid is not None
        family = psutil.Process(agent.pid).children(recursive=True)
        assert family, "jobs run in processes of their own"
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, timeout=10)
    assert not alive


def said_until(captions: Sequence[Caption]) -> float:
    """Where the last word of all finals ends, in seconds since the track was first heard."""
    words = [word for c in captions if c.final for word in json.loads(c.attributes["nemostream.words"])]
    return float(words[-1]["end"]) if words else 0.0


async def test_on_sigterm_all_that_was_said_until_then_becomes_final_before_it_ends(
    server: LiveKitServer, room_name: str, own_engine: dict[str, str]
) -> None:
    """`start` drains: rooms are captioned on for as long as --drain-timeout says, here not until the sentence ends."""
    speech = clip("monday", RATE)
    mode = ("start", "--drain-timeout", "1")
    # In production an agent on a busy machine declines, and the server asks for a room once.
    busy = {"NEMOSTREAM_LOAD_THRESHOLD": "inf"}
    async with AgentProcess(server, mode=mode, environment={**own_engine, **busy}) as agent:
        reader = await Reader.join(server, room_name)
        speaker = await Speaker.join(server, room_name, "A")
        await speaker.microphone.heard()
        began = time.monotonic()
        saying = asyncio.create_task(speaker.say(np.concatenate([speech.pcm] * 4)))
        await reader.until(lambda captions: bool(captions))
        asked = time.monotonic()
        status = await agent.drain()
        assert not saying.done(), "it was the middle of a sentence"
        assert status == 0
        # The last one may be on its way here still when the process has ended.
        captions = await reader.until(lambda all_: said_until(all_) > asked - began - 0.5)
        assert {caption.segment for caption in captions} == {c.segment for c in captions if c.final}
        saying.cancel()
        await speaker.leave()
        await reader.leave()


async def test_a_room_asks_again_for_an_agent_that_did_not_answer(
    server: LiveKitServer, room_name: str, own_engine: dict[str, str]
) -> None:
    async with (
        AgentProcess(server, environment=own_engine) as agent,
        api.LiveKitAPI(server.url, server.key, server.secret) as livekit,
    ):
        assert agent.pid is not None
        os.kill(agent.pid, signal.SIGSTOP)  # a machine that is busy with all else

        async def entering() -> int:
            async with captioned_room(server, room_name):
                return sum(len(sent.state.jobs) for sent in await livekit.agent_dispatch.list_dispatch(room_name))

        entered = asyncio.create_task(entering())
        try:
            while len(await livekit.agent_dispatch.list_dispatch(room_name)) < 2:
                await asyncio.wait([entered], timeout=0.5)
                assert not entered.done()
        finally:
            os.kill(agent.pid, signal.SIGCONT)
        assert await entered == 1, "and comes once"


async def test_a_wrong_program_name_is_one_page_of_help() -> None:
    command = [sys.executable, "-m", "nemostream_agent", "nonsense"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "captions" in done.stderr and "voice-agent" in done.stderr

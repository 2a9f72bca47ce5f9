"""The smallest voice agent that hears with our STT: `python -m nemostream_agent voice-agent dev`.

The language model and the voice come from LiveKit Inference here; put yours in their place.
"""

from __future__ import annotations

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, TurnHandlingOptions
from livekit.agents.voice.room_io import AudioInputOptions, RoomOptions

from livekit.plugins import nemo

server = AgentServer(load_fnc=nemo.load)


@server.rtc_session()
async def talk(ctx: JobContext) -> None:
    session = AgentSession[None](
        stt=nemo.STT(),
        llm="openai/gpt-4.1-mini",
        tts="cartesia/sonic-3",
        turn_handling=TurnHandlingOptions(turn_detection="stt"),
    )
    # 16 kHz from the SDK itself: at the default rate a resampler would hold 20 ms of audio back.
    audio = AudioInputOptions(sample_rate=16_000)
    await session.start(
        Agent(instructions="Answer briefly."), room=ctx.room, room_options=RoomOptions(audio_input=audio)
    )

"""An AgentSession without a room, a language model or a voice: audio in, turns out."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from livekit.agents import Agent, AgentSession, ChatContext, ChatMessage, StopResponse
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.voice import UserInputTranscribedEvent
from livekit.agents.voice.io import AudioInput

from livekit import rtc
from livekit.plugins import nemo
from tests.adapter.helpers import TIMEOUT, Pcm, frames

FRAME_MS = 80


class Queue(AudioInput):
    def __init__(self) -> None:
        super().__init__(label="test")
        self._frames: asyncio.Queue[rtc.AudioFrame] = asyncio.Queue()

    def put(self, frame: rtc.AudioFrame) -> None:
        self._frames.put_nowait(frame)

    async def __anext__(self) -> rtc.AudioFrame:
        return await self._frames.get()


class Listener(Agent):
    """Writes down each turn instead of answering it."""

    def __init__(self, turns: asyncio.Queue[str]) -> None:
        super().__init__(instructions="listen")
        self._turns = turns

    async def on_user_turn_completed(self, turn_ctx: ChatContext, new_message: ChatMessage) -> None:
        self._turns.put_nowait(new_message.text_content or "")
        raise StopResponse()


class Conversation:
    """A session that hears what is spoken into it: `async with Conversation(stt, turn_detection="stt") as talk`."""

    def __init__(self, stt: nemo.STT, stt_context_options: NotGivenOr[Any] = NOT_GIVEN, **turn_handling: Any) -> None:
        self.turns: asyncio.Queue[str] = asyncio.Queue()
        self.finals: list[str] = []
        self.states: list[str] = []
        self.session: AgentSession[None] = AgentSession(
            stt=stt,
            stt_context_options=stt_context_options,
            turn_handling=turn_handling,  # type: ignore[arg-type]
        )
        self._input = Queue()
        self.session.input.audio = self._input
        self.session.on("user_input_transcribed", self._on_transcribed)
        self.session.on("user_state_changed", lambda event: self.states.append(event.new_state))

    async def __aenter__(self) -> Conversation:
        await self.session.start(Listener(self.turns))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.aclose()

    async def hear(self, pcm: Pcm) -> None:
        """Let the session hear PCM at 16 kHz, in real time: its endpointing goes by the wall clock."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for frame in frames(pcm, frame_ms=FRAME_MS):
            self._input.put(frame)
            due += frame.duration
            await asyncio.sleep(max(0.0, due - loop.time()))

    def hear_at_once(self, pcm: Pcm) -> None:
        for frame in frames(pcm, frame_ms=FRAME_MS):
            self._input.put(frame)

    async def turn(self) -> str:
        return await asyncio.wait_for(self.turns.get(), TIMEOUT)

    def _on_transcribed(self, event: UserInputTranscribedEvent) -> None:
        if event.is_final and event.transcript:
            self.finals.append(event.transcript)

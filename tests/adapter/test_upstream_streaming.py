"""The framework's own streaming test (livekit/agents, tests/test_stt.py, test_stream; Apache-2.0), with a clip of ours.

24 kHz in frames of 10 ms at twice real time, then the end of the input. Asserted as upstream: speech starts only after
it ended, at least one final, the language on every final, a word error rate of at most 0.25, no task left behind.
"""

from __future__ import annotations

import asyncio

import jiwer
from livekit.agents.stt import SpeechEventType

from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream_agent.demo import CLIP, TRANSCRIPT
from nemostream_agent.participant import read_clip
from tests.adapter.helpers import TIMEOUT, frames

RATE = 24_000
MAX_WER = 0.25


async def test_stream_as_upstream(engine: Engine) -> None:
    before = asyncio.all_tasks()
    stt = nemo.STT(engine=engine)
    stream = stt.stream()

    async def push() -> None:
        for frame in frames(read_clip(CLIP, RATE), RATE, frame_ms=10):
            stream.push_frame(frame)
            await asyncio.sleep(0.005)
        stream.end_input()

    async def read() -> str:
        text, speaking, finals = "", False, 0
        async for event in stream:
            if event.type == SpeechEventType.START_OF_SPEECH:
                assert not speaking
                speaking = True
            elif event.type == SpeechEventType.END_OF_SPEECH:
                assert speaking
                speaking = False
            elif event.type == SpeechEventType.FINAL_TRANSCRIPT:
                text = f"{text} {event.alternatives[0].text}".strip()
                assert event.alternatives[0].language.startswith("en")
                finals += 1
        assert finals
        return text

    _, text = await asyncio.wait_for(asyncio.gather(push(), read()), TIMEOUT)
    await stream.aclose()
    await stt.aclose()
    assert jiwer.wer(TRANSCRIPT.read_text().strip(), text) <= MAX_WER
    assert asyncio.all_tasks() == before

"""Whole buffers: `STT.recognize`."""

from __future__ import annotations

import asyncio

import pytest
from livekit.agents.stt import SpeechEventType

from livekit.plugins import nemo
from nemostream.engine import Engine
from tests.adapter.helpers import clip, eventually, frames


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2)])
async def test_a_buffer_becomes_one_final(stt: nemo.STT, rate: int, channels: int) -> None:
    speech = clip("monday", rate)
    event = await stt.recognize(list(frames(speech.pcm, rate, channels=channels)))
    assert event.type == SpeechEventType.FINAL_TRANSCRIPT
    [data] = event.alternatives
    assert (data.text, data.language) == (speech.text, "en")
    assert data.words is not None and [str(w) for w in data.words] == speech.text.split()


async def test_no_audio_gives_an_empty_text(stt: nemo.STT) -> None:
    assert (await stt.recognize([])).alternatives[0].text == ""


async def test_many_buffers_at_once_give_each_its_own_text_and_free_their_rows(stt: nemo.STT, engine: Engine) -> None:
    names = ["monday", "tonight", "music"]
    clips = [clip(name) for name in names]
    events = await asyncio.gather(*(stt.recognize(list(frames(c.pcm))) for c in clips))
    assert [e.alternatives[0].text for e in events] == [c.text for c in clips]
    await eventually(lambda: engine.open_streams == 0)


async def test_prewarming_loads_the_model_off_the_loop() -> None:
    engine = Engine()
    stt = nemo.STT(engine=engine)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    ticking = asyncio.create_task(tick())
    stt.prewarm()
    await eventually(lambda: None in engine._core.models)
    ticking.cancel()
    assert ticks > 2
    await stt.aclose()
    engine.close()

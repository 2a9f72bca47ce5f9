"""LiveKit's adapters around our STT."""

from __future__ import annotations

import asyncio

import pytest
from livekit.agents import stt as lk

from livekit.plugins import nemo
from nemostream.engine import Engine
from tests.adapter.helpers import check_order, clip, finals, push, read_to_end, within


async def test_the_fallback_adapter_keeps_what_we_can_and_falls_over(engine: Engine) -> None:
    broken, working = nemo.STT(model="no-such-model", engine=engine), nemo.STT(engine=engine)
    adapter = lk.FallbackAdapter([broken, working], retry_interval=0.05)
    assert adapter.capabilities.manual_flush and adapter.capabilities.interim_results
    assert adapter.capabilities.aligned_transcript == "word"
    fell_over = asyncio.Event()
    adapter.on("stt_availability_changed", lambda _: fell_over.set())
    speech = clip("monday")
    stream = adapter.stream()
    # What it is given while it falls over, the framework's adapter loses.
    await within(fell_over.wait())
    push(stream, speech.pcm)
    stream.end_input()
    events = await read_to_end(stream)
    check_order(events)
    assert finals(events) == [speech.text]
    await stream.aclose()
    await adapter.aclose()
    await broken.aclose()
    await working.aclose()


async def test_the_multi_speaker_adapter_asks_for_speakers_that_we_do_not_tell_apart(engine: Engine) -> None:
    with pytest.raises(ValueError, match="diarization"):
        lk.MultiSpeakerAdapter(stt=nemo.STT(engine=engine))


async def test_of_a_known_speaker_the_multi_speaker_adapter_finds_the_primary_one_by_our_times(engine: Engine) -> None:
    """It compares the loudness of the audio between our start and end times, so they must match what was pushed."""
    speech = clip("monday")
    ours = nemo.STT(engine=engine, speaker_id="A")
    adapter = lk.MultiSpeakerAdapter(stt=ours, primary_format="primary: {text}", background_format="other: {text}")
    stream = adapter.stream()
    push(stream, speech.pcm)
    stream.end_input()
    events = await read_to_end(stream)
    assert finals(events)[0] == f"primary: {speech.text}"
    assert {d.speaker_id for e in events for d in e.alternatives} == {"A"}
    await stream.aclose()
    await ours.aclose()

"""The published livekit-plugins-deepgram, pointed at the gateway by its base_url; and its traffic, recorded."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import websockets
from livekit.agents.stt import SpeechEvent, SpeechEventType

from livekit.plugins import deepgram
from tests.adapter.helpers import ONE_TRY, TIMEOUT, Pcm, check_order, finals, frames, of, push, silence
from tests.adapter.session import Conversation
from tests.clips import TEXTS
from tests.gateway.clients import pcm, read
from tests.gateway.process import GatewayProcess

RECORDED = Path(__file__).parent / "data" / "deepgram_client.jsonl"


def speech(name: str) -> Pcm:
    return np.frombuffer(pcm(name), np.int16)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def stt(gateway: GatewayProcess, http: aiohttp.ClientSession, **options: Any) -> deepgram.STT:
    return deepgram.STT(api_key="any", base_url=f"{gateway.http}/v1/listen", http_session=http, **options)


async def heard(stream: deepgram.SpeechStream, utterances: int = 1) -> list[SpeechEvent]:
    """All events up to the end of so many utterances. (To its own end a stream takes another 5 s.)"""
    events = []
    async with asyncio.timeout(TIMEOUT):
        async for event in stream:
            events.append(event)
            if len(of(events, SpeechEventType.END_OF_SPEECH)) == utterances:
                break
    await stream.aclose()
    check_order(events)
    return events


@pytest.mark.parametrize("name", sorted(TEXTS))
async def test_frames_become_the_clips_text(gateway: GatewayProcess, http: aiohttp.ClientSession, name: str) -> None:
    stream = stt(gateway, http).stream(conn_options=ONE_TRY)
    push(stream, speech(name), 16_000)
    stream.end_input()
    events = await heard(stream)
    assert finals(events) == [TEXTS[name]]
    words = [w for e in of(events, SpeechEventType.FINAL_TRANSCRIPT) for w in e.alternatives[0].words or ()]
    assert " ".join(words) == TEXTS[name]
    times = [t for w in words for t in (w.start_time, w.end_time)]
    assert times == sorted(times) and 0 <= times[0] and times[-1] <= len(speech(name)) / 16_000


async def test_frames_of_48_khz_become_the_clips_text(gateway: GatewayProcess, http: aiohttp.ClientSession) -> None:
    stream = stt(gateway, http, sample_rate=48_000, keyterm=["monday"], utterance_end_ms=1000).stream()
    push(stream, np.repeat(speech("monday"), 3), 48_000)
    stream.end_input()
    assert finals(await heard(stream)) == [TEXTS["monday"]]


async def test_a_flush_makes_what_is_pending_final_and_speech_goes_on(
    gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    stream = stt(gateway, http, endpointing_ms=0).stream(conn_options=ONE_TRY)
    for name in ("monday", "tomorrow"):
        push(stream, speech(name), 16_000)
        stream.flush()
    stream.end_input()
    assert finals(await heard(stream, utterances=2)) == [TEXTS["monday"], TEXTS["tomorrow"]]


async def test_an_agent_session_hears_a_turn_for_each_utterance(
    gateway: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    async with Conversation(stt(gateway, http), turn_detection="stt") as talk:
        interims: list[str] = []
        talk.session.on("user_input_transcribed", lambda e: interims.append(e.transcript) if not e.is_final else None)
        for name in ("monday", "tomorrow"):
            await talk.hear(speech(name))
            await talk.hear(silence(1.0))
            assert await talk.turn() == TEXTS[name]
        assert talk.turns.empty()
    assert talk.finals == [TEXTS["monday"], TEXTS["tomorrow"]]
    assert any(TEXTS["monday"].startswith(text) for text in interims if text)


async def test_recognize_gives_the_clips_text(gateway: GatewayProcess, http: aiohttp.ClientSession) -> None:
    event = await stt(gateway, http).recognize(list(frames(speech("monday"), 16_000)), conn_options=ONE_TRY)
    (found,) = event.alternatives
    assert event.request_id and found.text == TEXTS["monday"]
    assert " ".join(found.words or ()) == TEXTS["monday"]
    assert 0 < found.start_time < found.end_time <= len(speech("monday")) / 16_000


async def test_recorded_traffic_is_answered_with_the_clips_text(gateway: GatewayProcess) -> None:
    """What version 1.8.9 of the plugin sends for a clip and a flush (record_deepgram.py); the audio is the clip's."""
    opened, *messages = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    audio = pcm(opened["clip"])
    assert hashlib.sha256(audio).hexdigest() == opened["sha256"]
    async with websockets.connect(gateway.ws + opened["path"], additional_headers=opened["headers"]) as socket:
        with contextlib.suppress(websockets.ConnectionClosed):  # it sends a KeepAlive behind the CloseStream
            for message in messages:
                if isinstance(message, int):
                    message, audio = audio[:message], audio[message:]
                await socket.send(message)
        answers = await read(socket)
    assert not audio and answers.code == 1000
    results = [m for m in answers.messages if m["type"] == "Results"]
    texts = [m["channel"]["alternatives"][0]["transcript"] for m in results if m["is_final"]]
    assert " ".join(filter(None, texts)) == TEXTS[opened["clip"]]
    assert [m["from_finalize"] for m in results].count(True) == sum("Finalize" in str(m) for m in messages)
    assert answers.messages[-1]["type"] == "Metadata"

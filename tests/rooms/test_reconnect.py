"""Connections that break in the middle of a sentence: LiveKit's own scenarios, at the agent and at the speaker.

Where the media connection outlives the signalling, the stream goes on, and nothing is missing but what WebRTC itself
conceals while its packets look for their path. Where it is made anew, what was said meanwhile is lost on the way and a
warning says how much; nothing hangs, and nothing is said twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter

import jiwer
import numpy as np
import pytest

from livekit import rtc
from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.participant import RATE, Caption
from tests.adapter.helpers import Pcm, clip, eventually, finals, push, read_to_end, silence, within
from tests.rooms.captioned import CaptionedRoom, RecordingSTT, Speaker, finals_of, text_of

CHUNK_MS = 160
LOST = "not heard"
TOLERANCE = 0.3
"""Seconds of speech: what a jitter buffer and an unfilled frame take with them, and how sharp the ends of words are."""


class Sentence:
    """A speaker says a sentence; `begun` as soon as some of it can be read."""

    def __init__(self, room: CaptionedRoom, speaker: Speaker) -> None:
        self.speech = clip("monday", RATE)
        self._room = room
        self._saying = asyncio.create_task(speaker.say(np.concatenate([self.speech.pcm, silence(1.0, RATE)])))

    async def begun(self) -> None:
        await self._room.reader.until(lambda captions: any(caption.speaker == "A" for caption in captions))

    async def ended(self) -> list[Caption]:
        """All its finals: it was played to its end and silence behind it, and every segment is closed."""
        await self._saying
        captions = await self._room.reader.until(closed)
        return finals_of(captions, "A")


def closed(captions: list[Caption]) -> bool:
    return {caption.segment for caption in captions} == {caption.segment for caption in captions if caption.final}


async def concealed(room: rtc.Room) -> float:
    """Seconds for which WebRTC made up sound because packets of the room's one track were late or lost."""
    [participant] = [p for p in room.remote_participants.values() if p.track_publications]
    [publication] = participant.track_publications.values()
    assert publication.track
    inbound = [stat.inbound_rtp for stat in await publication.track.get_stats() if stat.HasField("inbound_rtp")]
    return sum(stat.inbound.concealed_samples for stat in inbound) / RATE


async def read_again(recording: list[Pcm], engine: Engine) -> str:
    """The text of what a stream was given, by another stream."""
    async with nemo.STT(chunk_ms=CHUNK_MS, engine=engine) as stt, stt.stream() as stream:
        push(stream, np.concatenate(recording))
        stream.end_input()
        return " ".join(finals(await read_to_end(stream)))


def begins(captions: list[Caption]) -> list[float]:
    """Where the words of the finals begin, in seconds."""
    return [word["start"] for caption in captions for word in json.loads(caption.attributes["nemostream.words"])]


def check_once(sentence: Sentence, finals: list[Caption]) -> None:
    """Something was heard, and no word of the sentence twice (each of its words is another)."""
    said = sentence.speech.text.split()
    words = Counter(word for word in text_of(finals).split() if word in said)
    assert text_of(finals) and set(words.values()) <= {1}, text_of(finals)
    assert len({caption.segment for caption in finals}) == len(finals)


def seconds_of_speech(pcm: Pcm, rate: int) -> float:
    """Blocks of 20 ms above -40 dB of full scale."""
    blocks = pcm[: len(pcm) // (rate // 50) * (rate // 50)].reshape(-1, rate // 50)
    return 0.02 * int((np.abs(blocks.astype(np.int32)).max(axis=1) > 328).sum())


@pytest.mark.parametrize("who", ["agent", "speaker"])
async def test_a_sentence_is_heard_whole_when_the_signalling_is_resumed(
    server: LiveKitServer, room_name: str, engine: Engine, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    stt = RecordingSTT(chunk_ms=CHUNK_MS, engine=engine)
    async with CaptionedRoom(server, room_name, stt) as room:
        speaker = await room.speaker("A")
        sentence = Sentence(room, speaker)
        await sentence.begun()
        theirs = room.agent if who == "agent" else speaker.room
        await within(theirs.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT))
        captions = await sentence.ended()
        check_once(sentence, captions)
        [recording] = stt.recordings
        heard = seconds_of_speech(np.concatenate(recording), 16_000)
        assert heard > seconds_of_speech(sentence.speech.pcm, RATE) - await concealed(room.agent) - TOLERANCE
        assert jiwer.cer(await read_again(recording, engine), text_of(captions)) <= 1 / 3, "a stall may cut it in two"
        assert LOST not in caplog.text


@pytest.mark.parametrize(
    ("who", "scenario"),
    [
        ("agent", "SIMULATE_FULL_RECONNECT"),
        ("agent", "SIMULATE_DISCONNECT_SIGNAL_ON_RESUME"),
        ("speaker", "SIMULATE_FULL_RECONNECT"),
        ("speaker", "SIMULATE_MIGRATION"),
    ],
)
async def test_a_sentence_over_a_connection_made_anew_loses_no_more_than_is_reported(
    server: LiveKitServer,
    room_name: str,
    engine: Engine,
    who: str,
    scenario: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stt = RecordingSTT(chunk_ms=CHUNK_MS, engine=engine)
    async with CaptionedRoom(server, room_name, stt) as room:
        speaker = await room.speaker("A")
        sentence = Sentence(room, speaker)
        await sentence.begun()
        theirs = room.agent if who == "agent" else speaker.room
        with caplog.at_level(logging.WARNING, "nemostream.agent"):
            await within(theirs.simulate_scenario(getattr(rtc.SimulateScenarioKind, scenario)))
            finals = await sentence.ended()
            await eventually(lambda: LOST in caplog.text)
        assert len(stt.recordings) == 2 and len(room.captions._tracks) == 1
        reported = sum(float(seconds) for seconds in re.findall(rf"([\d.]+) s of .* {LOST}", caplog.text))
        heard = sum(seconds_of_speech(np.concatenate(recording), 16_000) for recording in stt.recordings)
        assert heard > seconds_of_speech(sentence.speech.pcm, RATE) - reported - TOLERANCE
        check_once(sentence, finals)
        if who == "agent":
            assert begins(finals) == sorted(begins(finals)), "it is the same track, whose times go on"
    await eventually(lambda: engine.open_streams == 0)


async def test_where_the_server_dismisses_the_agent_nothing_hangs_and_the_loss_is_reported(
    server: LiveKitServer, room_name: str, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async with CaptionedRoom(server, room_name, nemo.STT(chunk_ms=CHUNK_MS, engine=engine)) as room:
        sentence = Sentence(room, await room.speaker("A"))
        await sentence.begun()
        gone = asyncio.Event()
        room.agent.on("disconnected", lambda _: gone.set())
        await within(room.agent.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SERVER_LEAVE))
        await within(gone.wait())
        with caplog.at_level(logging.WARNING, "nemostream.agent"):
            await within(room.captions.aclose())
        assert "1 final captions of a track could not be sent" in caplog.text
        assert engine.open_streams == 0

"""A room in which an agent captions everyone and a viewer reads the captions."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from types import TracebackType

import jiwer
import numpy as np
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, NotGivenOr

from livekit import rtc
from livekit.plugins import nemo
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.participant import Caption, Microphone, Viewer, join
from nemostream_agent.room_captions import RoomCaptions
from tests.adapter.helpers import TEXTS, Pcm, eventually

TIMEOUT = 30.0
QUIET = 5.0
"""Seconds without a caption behind which none comes of what was said."""


class Speaker:
    """A participant with a published microphone."""

    def __init__(self, room: rtc.Room, microphone: Microphone) -> None:
        self.room = room
        self.microphone = microphone
        self.identity = room.local_participant.identity

    @classmethod
    async def join(cls, server: LiveKitServer, name: str, identity: str) -> Speaker:
        room = await join(server, name, identity)
        return cls(room, await Microphone.publish(room))

    async def say(self, pcm: Pcm) -> None:
        await self.microphone.play(pcm)

    async def publish_again(self) -> None:
        await self.microphone.unpublish()
        self.microphone = await Microphone.publish(self.room)

    async def leave(self) -> None:
        await self.room.disconnect()


class Reader:
    """Keeps all captions and waits for one."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.captions: list[Caption] = []
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def join(cls, server: LiveKitServer, name: str, identity: str = "viewer") -> Reader:
        return cls(await Viewer().join(server, name, identity))

    async def until(self, holds: Callable[[list[Caption]], bool]) -> list[Caption]:
        """All captions as soon as `holds` is true of them."""

        try:
            await asyncio.wait_for(self._wait(holds), TIMEOUT)
        except TimeoutError:
            raise AssertionError(f"it did not come; there were {self.captions}") from None
        return self.captions

    async def more_than(self, count: int) -> bool:
        """Wait for a caption on top of `count`; False if none comes within QUIET."""
        try:
            await asyncio.wait_for(self._wait(lambda captions: len(captions) > count), QUIET)
        except TimeoutError:
            return False
        return True

    async def _wait(self, holds: Callable[[list[Caption]], bool]) -> None:
        async with self._news:
            await self._news.wait_for(lambda: holds(self.captions))

    async def finals(self, identity: str, count: int = 1) -> list[Caption]:
        """The finals of `identity` as soon as there are `count`."""
        captions = await self.until(lambda all_: len(finals_of(all_, identity)) >= count)
        return finals_of(captions, identity)

    async def reads(self, identity: str, said: str) -> list[Caption]:
        """The finals of `identity` as soon as they say what was said; a stall of the machine may have cut it in two."""
        captions = await self.until(lambda all_: alike(text_of(finals_of(all_, identity)), said))
        return finals_of(captions, identity)

    async def leave(self) -> None:
        self._reading.cancel()
        await self.viewer.leave()

    async def _read(self) -> None:
        async for caption in self.viewer:
            async with self._news:
                self.captions.append(caption)
                self._news.notify_all()


def alike(heard: str, said: str) -> bool:
    """`said` is the nearest of all our sentences, and at least two letters of three are right. Opus, the pace of
    packets and the load of the machine make the audio of each run a little different."""
    cer = {sentence: float(jiwer.cer(sentence, heard)) for sentence in TEXTS.values()}
    return cer[said] == min(cer.values()) <= 1 / 3


def text_of(captions: list[Caption]) -> str:
    return " ".join(caption.text for caption in captions)


def finals_of(captions: list[Caption], identity: str) -> list[Caption]:
    return [caption for caption in captions if caption.final and caption.speaker == identity]


class CaptionedRoom:
    """`async with CaptionedRoom(server, name, stt) as room`: room.reader reads, room.speaker("A") speaks."""

    def __init__(self, server: LiveKitServer, name: str, stt: nemo.STT) -> None:
        self._server = server
        self._name = name
        self._stt = stt
        self._speakers: list[Speaker] = []

    async def __aenter__(self) -> CaptionedRoom:
        self.agent = rtc.Room()
        self.captions = RoomCaptions(self.agent, self._stt)
        self.reader = await Reader.join(self._server, self._name)
        await join(self._server, self._name, "captions", room=self.agent, agent=True)
        return self

    async def speaker(self, identity: str) -> Speaker:
        """A participant whose microphone the agent hears."""
        speaker = await Speaker.join(self._server, self._name, identity)
        self._speakers.append(speaker)
        await self.hears(speaker)
        return speaker

    async def hears(self, speaker: Speaker) -> None:
        sid = speaker.microphone.publication.sid
        try:
            await eventually(lambda: sid in self.captions._tracks)
        except TimeoutError:
            seen = {p.identity: list(p.track_publications.items()) for p in self.agent.remote_participants.values()}
            raise AssertionError(f"the agent does not hear {speaker.identity}'s {sid}; it sees {seen}") from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(speaker.leave() for speaker in self._speakers))
        await self.captions.aclose()
        await self.agent.disconnect()
        await self.reader.leave()
        await self._stt.aclose()


STALL = 0.3
"""Seconds without a push, of two that come 80 ms apart; at 400 ms the engine takes what was said as all for now."""


class RecordingSTT(nemo.STT):
    """Keeps the PCM that each of its streams was given, and how often it waited for it as long as STALL."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.recordings: list[list[Pcm]] = []
        self.recording_of: dict[nemo.SpeechStream, list[Pcm]] = {}
        self.stalls_of: dict[nemo.SpeechStream, int] = {}

    def stream(
        self, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> nemo.SpeechStream:
        stream = super().stream(language=language, conn_options=conn_options)
        push, recording = stream.push_frame, []
        self.recordings.append(recording)
        self.recording_of[stream] = recording
        self.stalls_of[stream] = 0
        before = math.inf

        def record(frame: rtc.AudioFrame) -> None:
            nonlocal before
            now = time.monotonic()
            self.stalls_of[stream] += now - before > STALL
            before = now
            recording.append(np.frombuffer(frame.data, np.int16).copy())
            push(frame)

        stream.push_frame = record  # type: ignore[method-assign]
        return stream

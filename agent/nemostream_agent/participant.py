"""Participants for the demo and the tests: one speaks a clip into a room, another reads the captions."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from livekit.agents.types import TOPIC_TRANSCRIPTION

from livekit import api, rtc

from .livekit_server import LiveKitServer

RATE = 48_000
FRAME = RATE // 10
"""100 ms; the SDK cuts it into packets of 20 ms, and each frame that it is given costs every listener there is."""

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Caption:
    """One text stream as a participant receives it; `speaker` is the identity in whose name it was sent."""

    speaker: str
    text: str
    attributes: dict[str, str]

    @property
    def final(self) -> bool:
        return self.attributes.get("lk.transcription_final") == "true"

    @property
    def segment(self) -> str:
        return self.attributes["lk.segment_id"]


async def join(
    server: LiveKitServer, name: str, identity: str, *, room: rtc.Room | None = None, agent: bool = False
) -> rtc.Room:
    """Connect to the room `name`.

    Args:
        room: one on which handlers were set before.
        agent: it hears the others, and the server lets its captions go out in their name; a mere participant of ours
            hears nobody, so that a track's first subscriber is the agent.
    """
    grants = api.VideoGrants(room_join=True, room=name, agent=agent)
    token = api.AccessToken(server.key, server.secret).with_identity(identity).with_grants(grants)
    room = room or rtc.Room()
    with warnings.catch_warnings():
        # The development server's secret is as short as it is known.
        warnings.simplefilter("ignore")
        jwt = (token.with_kind("agent") if agent else token).to_jwt()
    await room.connect(server.url, jwt, rtc.RoomOptions(auto_subscribe=agent))
    return room


class Viewer:
    """Receives the captions of a room, in order: `async for caption in viewer`."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self._captions: asyncio.Queue[Caption] = asyncio.Queue()
        self._readers: asyncio.Queue[tuple[rtc.TextStreamReader, str]] = asyncio.Queue()
        self.room.register_text_stream_handler(TOPIC_TRANSCRIPTION, lambda *args: self._readers.put_nowait(args))
        self._reading = asyncio.create_task(self._read(), name="viewer.read")

    async def join(self, server: LiveKitServer, name: str, identity: str) -> Viewer:
        await join(server, name, identity, room=self.room)
        return self

    async def leave(self) -> None:
        self._reading.cancel()
        await self.room.disconnect()

    async def __aiter__(self) -> AsyncIterator[Caption]:
        while True:
            yield await self._captions.get()

    async def _read(self) -> None:
        while True:
            reader, identity = await self._readers.get()
            try:
                text = await reader.read_all()
            except ConnectionError:
                continue  # the sender went away in the middle
            self._captions.put_nowait(Caption(identity, text, dict(reader.info.attributes or {})))


class Microphone:
    """A published microphone track that plays PCM in real time."""

    def __init__(self, room: rtc.Room, source: rtc.AudioSource, publication: rtc.LocalTrackPublication) -> None:
        self._room = room
        self._source = source
        self.publication = publication

    @classmethod
    async def publish(cls, room: rtc.Room) -> Microphone:
        source = rtc.AudioSource(RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        return cls(room, source, await room.local_participant.publish_track(track, options))

    async def heard(self, timeout: float = 15.0) -> None:
        """Wait until someone has subscribed to the track. Only for subscribers that come later than the track: of one
        that waits for it already, the SDK may miss the news."""
        await asyncio.wait_for(self.publication.wait_for_subscription(), timeout)

    async def play(self, pcm: Pcm) -> None:
        """Play PCM (N,) at 48 kHz to its end, in real time."""
        for start in range(0, len(pcm), FRAME):
            frame = np.zeros(FRAME, np.int16)
            part = pcm[start : start + FRAME]
            frame[: len(part)] = part
            await self._source.capture_frame(rtc.AudioFrame(frame.tobytes(), RATE, 1, FRAME))
        await self._source.wait_for_playout()

    def mute(self) -> None:
        track = self.publication.track
        assert isinstance(track, rtc.LocalAudioTrack)
        track.mute()

    def unmute(self) -> None:
        track = self.publication.track
        assert isinstance(track, rtc.LocalAudioTrack)
        track.unmute()

    async def unpublish(self) -> None:
        await self._room.local_participant.unpublish_track(self.publication.sid)


def read_clip(path: Path, rate: int = RATE) -> Pcm:
    """The samples (N,) of any sound file that PyAV reads, mono at `rate`."""
    resampler = av.AudioResampler("s16", "mono", rate)
    with av.open(str(path)) as file:
        frames = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray().ravel() for frame in [*frames, *resampler.resample(None)]])

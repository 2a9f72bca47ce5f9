"""RoomCaptions: captions for everyone in a room, one speech stream for each microphone track.

captions = RoomCaptions(room, stt)     # before room.connect(), so that no track is missed
...
await captions.aclose()
"""

from __future__ import annotations

import asyncio

from livekit.agents import APIError, stt
from livekit.agents.stt import SpeechEventType
from livekit.agents.utils import aio

from livekit import rtc
from livekit.plugins import nemo

from .log import logger
from .publisher import CaptionPublisher
from .track_audio import TrackAudio

REOPEN_PERIOD = 2.0
"""Seconds until a track whose stream failed for good (a full engine, say) is tried again."""


class RoomCaptions:
    """Follows the microphone tracks of a room: subscribed, muted, unpublished, published again, several at once."""

    def __init__(self, room: rtc.Room, stt: nemo.STT) -> None:
        self._room = room
        self._stt = stt
        self._audio = TrackAudio()
        self._tracks: dict[str, TrackCaptions] = {}
        self._ending: set[asyncio.Task[None]] = set()
        room.on("track_subscribed", self._on_subscribed)
        room.on("track_unsubscribed", self._on_unsubscribed)
        room.on("track_muted", self._on_muted)
        room.on("track_unmuted", self._on_unmuted)

    async def aclose(self) -> None:
        self._room.off("track_subscribed", self._on_subscribed)
        self._room.off("track_unsubscribed", self._on_unsubscribed)
        self._room.off("track_muted", self._on_muted)
        self._room.off("track_unmuted", self._on_unmuted)
        for sid in list(self._tracks):
            self._end(sid)
        if self._ending:
            await asyncio.wait(self._ending)
        self._audio.close()

    def _on_subscribed(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        if publication.source != rtc.TrackSource.SOURCE_MICROPHONE or track.kind != rtc.TrackKind.KIND_AUDIO:
            return
        if participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT:
            return  # agents send the text of what they say themselves
        publisher = CaptionPublisher(self._room, participant.identity, publication.sid)
        captions = self._tracks[publication.sid] = TrackCaptions(self._audio.open(track), self._stt, publisher)
        if publication.muted:
            captions.mute()

    def _on_unsubscribed(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        self._end(publication.sid)

    def _on_muted(self, participant: rtc.Participant, publication: rtc.TrackPublication) -> None:
        if publication.sid in self._tracks:
            self._tracks[publication.sid].mute()

    def _on_unmuted(self, participant: rtc.Participant, publication: rtc.TrackPublication) -> None:
        if publication.sid in self._tracks:
            self._tracks[publication.sid].unmute()

    def _end(self, sid: str) -> None:
        captions = self._tracks.pop(sid, None)
        if captions is not None:
            task = asyncio.create_task(captions.aclose(), name="captions.end")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


class TrackCaptions:
    """One track's audio through one speech stream to one publisher."""

    def __init__(self, audio: rtc.AudioStream, stt: nemo.STT, publisher: CaptionPublisher) -> None:
        self._stt = stt
        self._publisher = publisher
        self._audio = audio
        self._stream = stt.stream()
        self._muted = False
        self._listening = asyncio.create_task(self._listen(), name="captions.listen")
        self._reading = asyncio.create_task(self._read(), name="captions.read")

    def mute(self) -> None:
        self._muted = True
        self._stream.mute()

    def unmute(self) -> None:
        self._muted = False
        self._stream.unmute()

    async def aclose(self, timeout: float = 5.0) -> None:
        """The track is gone: what was said until then still becomes captions."""
        await asyncio.wait([self._listening], timeout=timeout / 5)
        await self._audio.aclose()
        await asyncio.wait([self._listening, self._reading], timeout=timeout)
        await aio.cancel_and_wait(self._listening, self._reading)
        await self._stream.aclose()
        await self._publisher.aclose()

    async def _listen(self) -> None:
        async for event in self._audio:
            # Between the end of one stream and the next (see _read) frames have nowhere to go.
            if not self._stream.ended:
                self._stream.push_frame(event.frame)
        if not self._stream.ended:
            self._stream.end_input()

    async def _read(self) -> None:
        while True:
            try:
                async for event in self._stream:
                    self._caption(event)
                return
            except APIError as error:
                logger.warning("a track has no captions for now: %s", error)
            await asyncio.sleep(REOPEN_PERIOD)
            if self._listening.done():
                return
            self._stream = self._stt.stream()
            if self._muted:
                self._stream.mute()

    def _caption(self, event: stt.SpeechEvent) -> None:
        if event.type in (SpeechEventType.INTERIM_TRANSCRIPT, SpeechEventType.PREFLIGHT_TRANSCRIPT):
            self._publisher.interim(event.alternatives[0])
        elif event.type == SpeechEventType.FINAL_TRANSCRIPT:
            self._publisher.final(event.alternatives[0])

"""RoomCaptions: captions for everyone in a room, one speech stream for each microphone track.

captions = RoomCaptions(room, stt)     # before room.connect(), so that no track is missed
...
await captions.aclose()
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

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

TAIL_PERIOD = 0.4
"""Seconds in which the rest of a track that is gone comes out of the SDK's jitter buffer. It does not say when."""

RETURN_PERIOD = 10.0
"""Seconds within which a participant who is back was on a connection that broke, and has not simply left."""


@dataclass(slots=True)
class Heard:
    """When a participant's track gave its first and its last frame, on the monotonic clock. A connection that is made
    anew brings the same track once more (ours broke), or another track of another participant sid (theirs did).

    `seconds` is how much audio came. It never comes faster than it was said: where there is more than time since the
    first frame, that frame lay somewhere before it was seen, and `since` moves back."""

    identity: str
    participant_sid: str
    track_sid: str
    since: float | None = None
    until: float | None = None
    seconds: float = 0.0

    def note(self, now: float, seconds: float) -> None:
        """So much audio more has come."""
        if self.since is None:
            self.since = now
        self.seconds += seconds
        self.since = min(self.since, now - self.seconds)


class RoomCaptions:
    """Follows the microphone tracks of a room: subscribed, muted, unpublished, published again, several at once."""

    def __init__(self, room: rtc.Room, stt: nemo.STT) -> None:
        self._room = room
        self._stt = stt
        self._audio = TrackAudio()
        self._tracks: dict[str, TrackCaptions] = {}
        self._heard: list[Heard] = []
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
        self._end(publication.sid)
        publisher = CaptionPublisher(self._room, participant.identity, publication.sid)
        heard = Heard(participant.identity, participant.sid, publication.sid)
        captions = TrackCaptions(
            self._audio.open(track), self._stt, publisher, heard, self._on_connection_before(heard)
        )
        self._tracks[publication.sid] = captions
        if publication.muted:
            captions.mute()

    def _on_connection_before(self, heard: Heard) -> Heard | None:
        """What `heard` was on a connection that broke, if any; from now on it takes its place."""
        before = [old for old in self._heard if old.track_sid == heard.track_sid] or [
            old
            for old in self._heard
            if old.identity == heard.identity and old.participant_sid != heard.participant_sid
        ]
        self._heard = [old for old in self._heard if old not in before] + [heard]
        return before[-1] if before else None

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
    """One track's audio through one speech stream to one publisher.

    Word times count from the first frame of the track, also behind a stream that failed and a connection that broke.
    """

    def __init__(
        self,
        audio: rtc.AudioStream,
        stt: nemo.STT,
        publisher: CaptionPublisher,
        heard: Heard,
        before: Heard | None = None,
    ) -> None:
        self._stt = stt
        self._publisher = publisher
        self._heard = heard
        self._before = before
        if before is not None and before.track_sid == heard.track_sid:
            heard.since, heard.seconds = before.since, before.seconds
        self._audio = audio
        self._stream = stt.stream()
        self._muted = False
        self._closing = False
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
        self._closing = True
        await asyncio.wait([self._listening], timeout=TAIL_PERIOD)
        await self._audio.aclose()
        await asyncio.wait([self._listening, self._reading], timeout=timeout)
        await aio.cancel_and_wait(self._listening, self._reading)
        await self._stream.aclose()
        await self._publisher.aclose()

    async def _listen(self) -> None:
        fed: nemo.SpeechStream | None = None
        async for event in self._audio:
            at = self._note_frame(event.frame.duration)
            if fed is not self._stream:
                fed = self._stream
                fed.start_time_offset = at
            # Between the end of one stream and the next (see _read) frames have nowhere to go.
            if not self._stream.ended:
                self._stream.push_frame(event.frame)
        if not self._stream.ended:
            self._stream.end_input()

    def _note_frame(self, seconds: float) -> float:
        """A frame has come; returns where it begins, in seconds of the track."""
        now = time.monotonic()
        first = self._heard.since is None
        self._heard.note(now, seconds)
        assert self._heard.since is not None
        if self._heard.until is None and self._before is not None and self._before.until is not None:
            lost = now - self._before.until
            if lost < RETURN_PERIOD:
                logger.warning("%.1f s of a participant were not heard while a connection was made anew", lost)
                self._publisher.lost(lost)
        # Of a track that is gone the SDK makes up some frames yet.
        if not self._closing:
            self._heard.until = now
        return 0.0 if first else now - seconds - self._heard.since

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
            self._publisher.interim(event.alternatives[0], self._heard_at(event.alternatives[0]))
        elif event.type == SpeechEventType.FINAL_TRANSCRIPT:
            self._publisher.final(event.alternatives[0], self._heard_at(event.alternatives[0]))

    def _heard_at(self, data: stt.SpeechData) -> float | None:
        """When the audio came in which the text's last word ends."""
        if self._heard.since is None or not data.words:
            return None
        return self._heard.since + (data.words[-1].end_time or 0.0)

"""CaptionPublisher: sends one track's captions into the room, in the name of who speaks.

Each caption is a text stream on the topic `lk.transcription`, as LiveKit's own agents send theirs: an interim carries
the whole text of its segment so far, the final is one more stream with the same `lk.segment_id`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass

from livekit.agents.stt import SpeechData
from livekit.agents.types import (
    ATTRIBUTE_TRANSCRIPTION_FINAL,
    ATTRIBUTE_TRANSCRIPTION_SEGMENT_ID,
    ATTRIBUTE_TRANSCRIPTION_TRACK_ID,
    TOPIC_TRANSCRIPTION,
)
from livekit.agents.utils import aio, shortuuid

from livekit import rtc
from livekit.plugins.nemo.events import POSSIBLE_LOSS

from .log import logger

INTERIM_PERIOD = 0.2
"""Each text stream is three reliable packets to everyone in the room, so at most five interims a second and track."""

RETRY_PERIOD = 0.5
"""Seconds until a final that could not be sent is tried again."""

ATTRIBUTE_LANGUAGE = "nemostream.language"
ATTRIBUTE_WORDS = "nemostream.words"
"""JSON, on finals: `[{"text", "start", "end", "confidence"}]`, times in seconds since the track was first heard."""
ATTRIBUTE_LOST = "nemostream.lost"
"""On the first final behind a connection that broke: seconds that were not heard."""
ATTRIBUTE_DELAY = "nemostream.delay_ms"
"""From the arrival of the audio in which the last word ends to when the caption left."""
ATTRIBUTE_POSSIBLE_LOSS = "nemostream.possible_loss"
""""true" on finals under which the engine was lost: a word may be missing."""


@dataclass(slots=True)
class _Caption:
    segment: str
    data: SpeechData
    final: bool
    heard_at: float | None
    lost: float = 0.0


class CaptionPublisher:
    """Captions of one track. `interim` and `final` return at once; of waiting interims only the newest is sent.

    Their `heard_at` is when the audio came in which the text's last word ends, on the monotonic clock.
    """

    def __init__(self, room: rtc.Room, identity: str, track_sid: str) -> None:
        self._room = room
        self._identity = identity
        self._track_sid = track_sid
        self._segment = shortuuid("SG_")
        self._finals: deque[_Caption] = deque()
        self._interim: _Caption | None = None
        self._shown = ""
        self._lost = 0.0
        self._news = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._publish(), name="captions.publish")

    def interim(self, data: SpeechData, heard_at: float | None = None) -> None:
        # A preflight repeats the text of its interim; who reads captions needs it once.
        if data.text and data.text != self._shown:
            self._shown = data.text
            self._interim = _Caption(self._segment, data, False, heard_at)
            self._news.set()

    def final(self, data: SpeechData, heard_at: float | None = None) -> None:
        if not data.text:
            return
        self._interim = None
        self._shown = ""
        self._finals.append(_Caption(self._segment, data, True, heard_at, self._lost))
        self._lost = 0.0
        self._segment = shortuuid("SG_")
        self._news.set()

    def lost(self, seconds: float) -> None:
        """So much was not heard; the next final says so."""
        self._lost += seconds

    async def aclose(self, timeout: float = 5.0) -> None:
        """Send the finals that wait, then stop. A room that is reconnecting has `timeout` seconds."""
        self._closing = True
        self._news.set()
        await asyncio.wait([self._task], timeout=timeout)
        await aio.cancel_and_wait(self._task)
        if self._finals:
            logger.warning("%d final captions of a track could not be sent", len(self._finals))

    async def _publish(self) -> None:
        loop = asyncio.get_running_loop()
        next_interim = 0.0
        while True:
            if self._finals:
                if await self._send(self._finals[0]):
                    self._finals.popleft()
                elif self._closing and not self._room.isconnected():
                    return
                else:
                    await asyncio.sleep(RETRY_PERIOD)
            elif self._closing:
                return
            elif self._interim is not None and loop.time() >= next_interim:
                next_interim = loop.time() + INTERIM_PERIOD
                caption, self._interim = self._interim, None
                await self._send(caption)
            else:
                self._news.clear()
                # With an interim waiting for its turn the wait ends at its time, or sooner with a final.
                timeout = None if self._interim is None else next_interim - loop.time()
                try:
                    await asyncio.wait_for(self._news.wait(), timeout)
                except TimeoutError:
                    pass

    async def _send(self, caption: _Caption) -> bool:
        try:
            writer = await self._room.local_participant.stream_text(
                topic=TOPIC_TRANSCRIPTION, sender_identity=self._identity, attributes=self._attributes(caption)
            )
            await writer.write(caption.data.text)
            await writer.aclose()
        except Exception as error:
            # The room is gone, or reconnecting: the next interim is as good, a final is sent again.
            logger.warning("could not publish a caption: %s", error)
            return False
        return True

    def _attributes(self, caption: _Caption) -> dict[str, str]:
        attributes = {
            ATTRIBUTE_TRANSCRIPTION_SEGMENT_ID: caption.segment,
            ATTRIBUTE_TRANSCRIPTION_TRACK_ID: self._track_sid,
            ATTRIBUTE_TRANSCRIPTION_FINAL: "true" if caption.final else "false",
            ATTRIBUTE_LANGUAGE: caption.data.language,
        }
        if caption.heard_at is not None:
            attributes[ATTRIBUTE_DELAY] = f"{1000 * (time.monotonic() - caption.heard_at):.0f}"
        if caption.lost:
            attributes[ATTRIBUTE_LOST] = f"{caption.lost:.1f}"
        if caption.data.metadata and caption.data.metadata.get(POSSIBLE_LOSS):
            attributes[ATTRIBUTE_POSSIBLE_LOSS] = "true"
        if caption.final:
            words = [
                {
                    "text": str(word),
                    "start": round(word.start_time or 0.0, 3),
                    "end": round(word.end_time or 0.0, 3),
                    "confidence": round(word.confidence or 0.0, 3),
                }
                for word in caption.data.words or []
            ]
            attributes[ATTRIBUTE_WORDS] = json.dumps(words, ensure_ascii=False, separators=(",", ":"))
        return attributes

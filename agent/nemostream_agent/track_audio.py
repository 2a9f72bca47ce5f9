"""TrackAudio: the audio of a room's tracks, where each stream is woken by frames of its own alone.

audio = TrackAudio()
stream = audio.open(track)     # an rtc.AudioStream
...
audio.close()                  # when its streams are closed

The SDK hands every frame event of a process to every AudioStream in it, which drops what is not its own: N tracks, N²
wake-ups (livekit 1.1.21, rtc/audio_stream.py; there is no public extension point). Here one subscription looks up whose
frame it is. What is private to the SDK is touched in this file alone; where it is not as expected, the streams stay the
SDK's own.
"""

from __future__ import annotations

import asyncio
from typing import Any

from livekit import rtc

from .log import logger

RATE = 16_000
FRAME_MS = 80
"""The SDK makes exactly the frames that the engine hears: no resampling and no waiting on our side."""


class TrackAudio:
    """One subscription to the SDK's events for all streams opened here; lives on the loop that opens the first."""

    def __init__(self) -> None:
        self._routes: dict[int, tuple[asyncio.Queue[Any], asyncio.AbstractEventLoop]] = {}
        self._subscription: Any = None
        self._warned = False

    def open(self, track: rtc.Track) -> rtc.AudioStream:
        """A track as 16 kHz mono in frames of FRAME_MS."""
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=FRAME_MS)
        try:
            self._route(stream)
        except (ImportError, AttributeError, TypeError) as error:
            if not self._warned:
                logger.warning("this livekit SDK is new to us, so many tracks cost more than they need to: %s", error)
                self._warned = True
        return stream

    def close(self) -> None:
        if self._subscription is not None:
            _events().unsubscribe(self._subscription)
            self._subscription = None

    def routes(self, stream: rtc.AudioStream) -> bool:
        """Whether `stream` is open and hears its own events alone."""
        return stream._ffi_handle.handle in self._routes

    def _route(self, stream: rtc.AudioStream) -> None:
        """Take the stream's own queue off the SDK's list and serve it ourselves. It is the same queue, and the SDK's
        lock is held, so that no event falls between the two and none comes twice.

        Raises:
            ImportError, AttributeError, TypeError: the SDK's internals are others; the stream is as it was.
        """
        events, loop = _events(), asyncio.get_running_loop()
        queue, handle = stream._ffi_queue, stream._ffi_handle.handle
        with events._lock:
            if not isinstance(handle, int) or not _subscribed(events, queue):
                raise TypeError("an AudioStream subscribes otherwise")
            if self._subscription is None:
                self._subscription = events.subscribe(loop, filter_fn=self._deliver)
            events.unsubscribe(queue)
            if _subscribed(events, queue):
                raise TypeError("an AudioStream cannot be unsubscribed")
            self._routes[handle] = (queue, loop)

    def _deliver(self, event: Any) -> bool:
        """As the filter of a subscription it is asked about every event, on the SDK's thread. It brings each to its
        stream, and lets none through to the subscription itself."""
        if event.WhichOneof("message") != "audio_stream_event":
            return False
        audio = event.audio_stream_event
        route = self._routes.get(audio.stream_handle)
        if route is not None:
            queue, loop = route
            if audio.HasField("eos"):
                del self._routes[audio.stream_handle]
            try:
                loop.call_soon_threadsafe(queue.put_nowait, event)
            except RuntimeError:
                pass  # the loop was closed with the stream still open
        return False


def _events() -> Any:
    from livekit.rtc._ffi_client import FfiClient

    return FfiClient.instance.queue


def _subscribed(events: Any, queue: object) -> bool:
    return any(subscriber[0] is queue for subscriber in events._subscribers)

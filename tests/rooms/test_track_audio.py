"""Many tracks in one process: each stream is woken by its own frames, and misses none. These fail when the SDK changes
what track_audio.py rests on."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import numpy as np
import pytest

from livekit import rtc
from nemostream_agent import track_audio
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.participant import RATE, Microphone, Pcm, join
from nemostream_agent.track_audio import FRAME_MS, TrackAudio
from tests.adapter.helpers import within

TRACKS = 6
SECONDS = 2.0


def tone(hertz: int) -> Pcm:
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(int(SECONDS * RATE)) / RATE)).astype(np.int16)


class Heard:
    """Reads a stream to its end and counts what its queue is given, by the handle that each event is for."""

    def __init__(self, stream: rtc.AudioStream) -> None:
        self.stream = stream
        self.handle = stream._ffi_handle.handle
        self.given: Counter[int] = Counter()
        self.frames: list[Pcm] = []
        put = stream._ffi_queue.put_nowait

        def count(event: Any) -> None:
            self.given[event.audio_stream_event.stream_handle] += 1
            put(event)

        stream._ffi_queue.put_nowait = count  # type: ignore[method-assign]
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.stream:
            self.frames.append(np.frombuffer(event.frame.data, np.int16))

    @property
    def others(self) -> int:
        return self.given.total() - self.given[self.handle]

    @property
    def pitch(self) -> int:
        """The loudest frequency in Hz."""
        pcm = np.concatenate(self.frames)
        return int(round(np.abs(np.fft.rfft(pcm)).argmax() * 16_000 / len(pcm)))


async def test_each_stream_is_woken_by_its_own_frames_alone_and_misses_none(
    server: LiveKitServer, room_name: str
) -> None:
    audio, listener = TrackAudio(), rtc.Room()
    ours: dict[str, Heard] = {}
    plain: dict[str, Heard] = {}
    all_here = asyncio.Event()

    def listen(track: rtc.Track, publication: rtc.RemoteTrackPublication, _: rtc.RemoteParticipant) -> None:
        ours[publication.sid] = Heard(audio.open(track))
        if not plain:
            plain[publication.sid] = Heard(rtc.AudioStream(track, sample_rate=16_000, frame_size_ms=FRAME_MS))
        if len(ours) == TRACKS:
            all_here.set()

    listener.on("track_subscribed", listen)
    await join(server, room_name, "listener", room=listener, agent=True)
    speaker = await join(server, room_name, "A")
    microphones = [await Microphone.publish(speaker) for _ in range(TRACKS)]
    await within(all_here.wait())
    assert all(audio.routes(heard.stream) for heard in ours.values()), "the SDK's internals have changed"
    hertz = {microphone.publication.sid: 300 * (i + 1) for i, microphone in enumerate(microphones)}
    await asyncio.gather(*(m.play(tone(hertz[m.publication.sid])) for m in microphones))
    everyone = [*ours.values(), *plain.values()]
    await asyncio.gather(*(heard.stream.aclose() for heard in everyone))
    await within(asyncio.gather(*(heard.reading for heard in everyone)))

    for sid, heard in ours.items():
        assert heard.others == 0
        # Its frames and its end. A frame that comes with the end is not read: the SDK's iterator stops before it.
        assert 0 <= heard.given[heard.handle] - 1 - len(heard.frames) <= 1
        assert abs(heard.pitch - hertz[sid]) <= 2
    [(sid, other)] = plain.items()
    assert abs(len(other.frames) - len(ours[sid].frames)) <= 1, "no audio is lost on the way to our own subscription"
    assert other.others > 3 * len(other.frames), "the SDK wakes a stream by its own events now: track_audio.py can go"
    assert not any(audio.routes(heard.stream) for heard in ours.values())
    subscriptions = len(track_audio._events()._subscribers)
    audio.close()
    assert len(track_audio._events()._subscribers) == subscriptions - 1
    await speaker.disconnect()
    await listener.disconnect()


async def test_where_the_sdk_is_another_the_streams_are_its_own_and_one_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(track_audio, "_events", object)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", rtc.AudioSource(RATE, 1))
    audio = TrackAudio()
    with caplog.at_level(logging.WARNING, "nemostream.agent"):
        streams = [audio.open(track), audio.open(track)]
    assert len(caplog.records) == 1
    monkeypatch.undo()
    for stream in streams:
        assert not audio.routes(stream) and track_audio._subscribed(track_audio._events(), stream._ffi_queue)
        await within(stream.aclose())
    audio.close()

"""Five minutes in a real room with a poor line: word times do not drift, finals come in time, none is left open.

The speaker's packets pass through a relay between the SDK and the server (tests/rooms/relay.py) that loses 5 % of the
audio packets, retransmissions included, in bursts of four on average. DTX is on, so that there are few packets in
pauses. At the end the line is cut in the middle of a sentence, and the speaker is never heard of again.
"""

from __future__ import annotations

import asyncio
import io
import json
import statistics
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from livekit import rtc
from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.protocol import Endpointing, Final
from nemostream.transcribe import open_file_stream
from nemostream.transcribe import run as run_file
from nemostream_agent.livekit_server import LiveKitServer, find_or_build
from nemostream_agent.participant import RATE, Caption, Microphone, Viewer, join
from nemostream_agent.room_captions import RoomCaptions
from tests.adapter.helpers import TEXTS, Pcm, clip, eventually
from tests.rooms.captioned import RecordingSTT
from tests.rooms.relay import Bursts, Relay

SOURCES = ["plugin/nemostream/*.py", "plugin/livekit/plugins/nemo/*.py", "agent/nemostream_agent/*.py"]
SECONDS, WINDOW = 300.0, 100.0
CHUNK_MS = 160
P_MS = 320
SLACK_MS = 300
ENDPOINT_MS = Endpointing().blank_ms or 0
FINAL_WITHIN = (ENDPOINT_MS + CHUNK_MS + P_MS + SLACK_MS) / 1000
DRIFT = 0.1
"""Seconds by which the median onset error of the last WINDOW may differ from that of the first."""
NEAR = 0.7
"""Seconds within which a word of the same text is taken for the same word."""


@dataclass(slots=True)
class Spoken:
    """A word that the speaker said, in seconds since the speaker began; `heard` on the clock of the track."""

    text: str
    start: float
    end: float
    heard: float | None = None


@dataclass(slots=True)
class Script:
    """What is said, and when."""

    pcm: list[Pcm] = field(default_factory=list)
    words: list[Spoken] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, pcm: Pcm, words: list[tuple[str, float, float]]) -> None:
        self.words += [Spoken(text, self.seconds + start, self.seconds + end) for text, start, end in words]
        self.pcm.append(pcm)
        self.seconds += len(pcm) / RATE


def run() -> dict[str, Any]:
    return asyncio.run(_run())


async def _run() -> dict[str, Any]:
    script = _script()
    engine = Engine(EngineConfig())
    engine.load(None)
    stt = _TimedSTT(chunk_ms=CHUNK_MS, engine=engine)
    agent, viewer = rtc.Room(), Viewer()
    captions = RoomCaptions(agent, stt)
    came: list[tuple[float, Caption]] = []
    with LiveKitServer(find_or_build(), ice_lite=True) as server:
        await viewer.join(server, "lossy", "viewer")
        await join(server, "lossy", "captions", room=agent, agent=True)
        reading = asyncio.create_task(_read(viewer, came))
        async with Relay(server, Bursts()) as relay:
            speaker = await join(relay, "lossy", "A")
            microphone = await _publish(speaker)
            await eventually(lambda: bool(captions._tracks) and stt.first_heard is not None)
            began = time.monotonic()
            playing = asyncio.create_task(microphone.play(np.concatenate(script.pcm)))
            await asyncio.sleep(began + script.seconds - 1.0 - time.monotonic())
            # In the middle of the last sentence.
            relay.cut()
            cut = time.monotonic()
            await asyncio.sleep(FINAL_WITHIN + 1.0)
            playing.cancel()
            await speaker.disconnect()
        assert stt.first_heard is not None
        result = _judge(script, came, began, began - stt.first_heard, cut)
        result |= {"packets": relay.sent, "lost_percent": round(100 * relay.lost / relay.sent, 1)}
        result |= {"heard_slower_than_wall_ms": stt.lag_ms()}
        print(json.dumps(result, indent=1))
        await captions.aclose()
        await agent.disconnect()
        reading.cancel()
        await viewer.leave()
    await stt.aclose()
    await eventually(lambda: engine.open_streams == 0)
    engine.close()
    _check(result)
    return result


def _check(result: dict[str, Any]) -> None:
    assert result["lost_percent"] > 3
    assert result["words_found_percent"] > 60, result
    assert abs(result["onset_error_last_ms"] - result["onset_error_first_ms"]) <= 1000 * DRIFT, result
    assert result["final_after_word_ms"]["max"] <= 1000 * FINAL_WITHIN, result
    assert not result["segments_left_open"], result
    assert 0 < result["final_after_cut_ms"] <= 1000 * FINAL_WITHIN, result


def _judge(
    script: Script, came: list[tuple[float, Caption]], began: float, offset: float, cut: float
) -> dict[str, Any]:
    """`offset`: the track had been heard for so long when the speaker began."""
    late: list[float] = []
    for at, caption in came:
        last: Spoken | None = None
        for word in json.loads(caption.attributes["nemostream.words"]) if caption.final else ():
            last = _nearest(script, word["text"], word["start"] - offset)
            if last is not None:
                last.heard = word["start"] - offset
        # A final whose last word is a misheard one says nothing of when that was spoken.
        if last is not None and began + last.end < cut:
            late.append(at - (began + last.end))
    errors = [(w.start, w.heard - w.start) for w in script.words if w.heard is not None]
    first = [error for start, error in errors if start < WINDOW]
    last_ = [error for start, error in errors if start > script.seconds - WINDOW]
    final = {caption.segment for _, caption in came if caption.final}
    # What was shown and taken back wholly is no segment any more; what stays shown must be final.
    shown = {caption.segment for _, caption in came}
    return {
        "words": len(script.words),
        "words_found_percent": round(100 * len(errors) / len(script.words)),
        "onset_error_first_ms": _ms(statistics.median(first)),
        "onset_error_last_ms": _ms(statistics.median(last_)),
        "final_after_word_ms": {
            "median": _ms(statistics.median(late)),
            "p95": _ms(float(np.quantile(late, 0.95))),
            "max": _ms(max(late)),
            "bound": _ms(FINAL_WITHIN),
        },
        "finals": len(late),
        "final_after_cut_ms": _ms(max((at for at, caption in came if caption.final), default=0.0) - cut),
        "segments_left_open": len(shown - final),
    }


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _nearest(script: Script, text: str, start: float) -> Spoken | None:
    near = [w for w in script.words if w.text == text and w.heard is None and abs(w.start - start) < NEAR]
    return min(near, key=lambda w: abs(w.start - start), default=None)


def _script() -> Script:
    """Sentences with pauses of 1 to 3 s; the last one is still being said when the time is over."""
    rng = np.random.default_rng(0)
    names = sorted(TEXTS)
    words = {name: list(_file_words(clip(name).pcm)) for name in names}
    script = Script()
    while script.seconds < SECONDS:
        script.add(np.zeros(int(rng.uniform(1, 3) * RATE), np.int16), [])
        name = names[int(rng.integers(len(names)))]
        script.add(clip(name, RATE).pcm, words[name])
    return script


def _file_words(pcm: Pcm) -> Iterator[tuple[str, float, float]]:
    """The words of `nemostream transcribe`, and when."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        wav.writeframes(np.concatenate([pcm, np.zeros(16_000, np.int16)]).tobytes())
    file.seek(0)
    for events, _, _ in run_file(open_file_stream(None, CHUNK_MS, None, None), file):
        for event in events:
            if isinstance(event, Final):
                for word in event.words:
                    yield word.text, word.start_sample / 16_000, word.end_sample / 16_000


async def _publish(room: rtc.Room) -> Microphone:
    source = rtc.AudioSource(RATE, 1)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=True)
    return Microphone(room, source, await room.local_participant.publish_track(track, options))


async def _read(viewer: Viewer, came: list[tuple[float, Caption]]) -> None:
    async for caption in viewer:
        came.append((time.monotonic(), caption))


class _TimedSTT(RecordingSTT):
    """Knows when the first frame of its one stream was heard, and how the samples that came compare with the time."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.first_heard: float | None = None
        self._came: list[tuple[float, int]] = []

    def stream(self, **options: Any) -> nemo.SpeechStream:
        stream = super().stream(**options)
        push = stream.push_frame

        def timed(frame: rtc.AudioFrame) -> None:
            now = time.monotonic()
            if self.first_heard is None:
                self.first_heard = now - frame.duration
            self._came.append((now, frame.samples_per_channel))
            push(frame)

        stream.push_frame = timed  # type: ignore[method-assign]
        return stream

    def lag_ms(self) -> dict[str, int]:
        """By how much the samples that came are fewer than the time that passed, at the end and at most."""
        assert self.first_heard is not None
        at = np.array([t for t, _ in self._came]) - self.first_heard
        lag: npt.NDArray[np.float64] = at - np.cumsum([n for _, n in self._came]) / 16_000
        return {"end": _ms(float(lag[-100:].min())), "max": _ms(float(lag.max()))}

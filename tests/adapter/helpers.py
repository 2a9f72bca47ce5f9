"""Speech, a real engine's STT and readers of its events, for the tests of the adapter and of rooms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from livekit.agents import stt
from livekit.agents.stt import SpeechEvent, SpeechEventType
from livekit.agents.types import APIConnectOptions

from livekit import rtc
from nemostream_agent.participant import read_clip
from tests.speech import synth

CLIPS = Path(__file__).resolve().parent.parent / "clips"
TEXTS: dict[str, str] = json.loads((CLIPS / "clips.json").read_text())
TIMEOUT = 20.0
ONE_TRY = APIConnectOptions(max_retry=0)

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Clip:
    """A spoken sentence, PCM (N,) at `rate`."""

    text: str
    pcm: Pcm
    rate: int


def clip(name: str, rate: int = 16_000) -> Clip:
    return Clip(TEXTS[name], read_clip(CLIPS / f"{name}.opus", rate), rate)


def toy(*words: str, seed: int = 3) -> Clip:
    """A sentence of the toy language at 16 kHz."""
    samples = synth(words, np.random.RandomState(seed))
    return Clip(" ".join(words), (samples * 32767).astype(np.int16), 16_000)


def silence(seconds: float, rate: int = 16_000) -> Pcm:
    return np.zeros(int(seconds * rate), np.int16)


def frames(pcm: Pcm, rate: int = 16_000, frame_ms: int = 20, channels: int = 1) -> Iterator[rtc.AudioFrame]:
    """PCM (N,) as frames; with two channels each carries the same."""
    size = rate * frame_ms // 1000
    for start in range(0, len(pcm), size):
        part = pcm[start : start + size]
        yield rtc.AudioFrame(np.repeat(part, channels).tobytes(), rate, channels, len(part))


def push(stream: stt.RecognizeStream, pcm: Pcm, rate: int = 16_000, **shape: int) -> None:
    for frame in frames(pcm, rate, **shape):
        stream.push_frame(frame)


async def read_to_end(stream: stt.RecognizeStream) -> list[SpeechEvent]:
    """Every event up to the end of the stream's input."""

    async def read() -> list[SpeechEvent]:
        return [event async for event in stream]

    return await asyncio.wait_for(read(), TIMEOUT)


async def next_of(stream: AsyncIterator[SpeechEvent], kind: SpeechEventType) -> SpeechEvent:
    """The next event of that kind."""

    async def read() -> SpeechEvent:
        async for event in stream:
            if event.type == kind:
                return event
        raise AssertionError(f"the stream ended without {kind}")

    return await asyncio.wait_for(read(), TIMEOUT)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until `holds()`; for state of the engine's thread, which sends no event of its own."""

    async def poll() -> None:
        while not holds():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), TIMEOUT)


async def within(awaitable: Awaitable[object]) -> None:
    await asyncio.wait_for(awaitable, TIMEOUT)


def finals(events: Iterable[SpeechEvent]) -> list[str]:
    """The texts of the finals that have one."""
    texts = [e.alternatives[0].text for e in events if e.type == SpeechEventType.FINAL_TRANSCRIPT]
    return [text for text in texts if text]


def of(events: Iterable[SpeechEvent], kind: SpeechEventType) -> list[SpeechEvent]:
    return [event for event in events if event.type == kind]


def check_order(events: Iterable[SpeechEvent]) -> None:
    """The order that a session relies on: START, (INTERIM | PREFLIGHT)*, FINAL+, END, and only answers in between."""
    speaking = False
    for event in events:
        if event.type in (
            SpeechEventType.INTERIM_TRANSCRIPT,
            SpeechEventType.PREFLIGHT_TRANSCRIPT,
            SpeechEventType.FINAL_TRANSCRIPT,
        ):
            assert len(event.alternatives) == 1, event
        if event.type == SpeechEventType.START_OF_SPEECH:
            assert not speaking, "START_OF_SPEECH while speaking"
            speaking = True
        elif event.type == SpeechEventType.END_OF_SPEECH:
            assert speaking, "END_OF_SPEECH while silent"
            speaking = False
        elif event.type in (SpeechEventType.INTERIM_TRANSCRIPT, SpeechEventType.PREFLIGHT_TRANSCRIPT):
            assert speaking, f"{event.type} before START_OF_SPEECH"
        elif event.type == SpeechEventType.FINAL_TRANSCRIPT and event.alternatives[0].text:
            assert speaking, "a final with text before START_OF_SPEECH"
    assert not speaking, "no END_OF_SPEECH behind the last words"

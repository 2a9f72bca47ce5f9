"""The same clips through a LiveKit room: speakers with microphones, the agent that captions them, a viewer who reads.

hall = Room(path, precision=None, threads=None, loss=0.05)
heard = hall.hear(clips, Way(chunk_ms=160, decoder="rnnt"))
hall.lost                                   # the part of audio packets that really was

Everything is real: livekit-server, Opus, jitter buffers, the captions agent and its engine. The speakers' packets pass
through a relay (tests/rooms/relay.py) that loses audio packets, retransmissions included, in bursts of four on average.
Times are of this machine's clock, steps and network included.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, cast

import numpy as np
import soxr

from bench.accuracy.hearing import Heard, Way
from bench.accuracy.manifest import Clip
from livekit import rtc
from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.protocol import SAMPLE_RATE, Samples, Word
from nemostream_agent.livekit_server import LiveKitServer, find_or_build
from nemostream_agent.participant import RATE, Caption, Microphone, Pcm, Viewer, join
from nemostream_agent.room_captions import RoomCaptions
from tests.rooms.relay import Bursts, Relay

NAME = "accuracy"
SETTLE = 1.0
"""Seconds of silence that a speaker begins with, in which buffers fill and the stream opens."""
HEARD_WITHIN = 20.0
"""Seconds until the agent has a speaker's track, at most."""


@dataclass(slots=True, eq=False)
class _Turn:
    """A clip that is spoken. `began`: when its sound began to be played; `before`: samples of silence in front."""

    number: int
    clip: Clip
    began: float
    before: int

    @property
    def speech(self) -> float:
        return self.began + (self.before + self.clip.begins) / SAMPLE_RATE


@dataclass(slots=True)
class Room:
    """`loss`: the part of audio packets to lose; `speakers`: at once, each with its share of the clips."""

    path: Path
    precision: str | None
    threads: int | None
    loss: float
    speakers: int = 8
    sent: int = 0
    dropped: int = 0
    _came: list[tuple[float, Caption]] = field(default_factory=list)
    _turns: dict[str, list[_Turn]] = field(default_factory=dict)

    @property
    def lost(self) -> float:
        """The part of the packets that was lost, of all clips heard so far."""
        return self.dropped / max(1, self.sent)

    def hear(self, clips: Sequence[Clip], way: Way) -> list[Heard]:
        """Every clip, in a process of its own: at its end the SDK's threads may still call into Python, which ends the
        process hard. Words come without times.

        Raises:
            NemostreamError: the model cannot be loaded.
            ServerError: there is no livekit-server, and none can be built.
            RuntimeError: a speaker cannot join, or is not heard.
        """
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            heard, sent, dropped = pool.submit(_hear, self, clips, way).result()
        self.sent += sent
        self.dropped += dropped
        return heard

    def hear_here(self, clips: Sequence[Clip], way: Way) -> list[Heard]:
        """`hear`, in this process."""
        self._came, self._turns = [], {}
        try:
            asyncio.run(self._run(clips, way))
        except (TimeoutError, rtc.ConnectError) as error:
            raise RuntimeError(f"a speaker cannot be heard in the room ({error!r}); run it again") from error
        heard: dict[int, Heard] = {}
        for speaker, turns in self._turns.items():
            came = [(at, caption) for at, caption in self._came if caption.speaker == speaker]
            # Text that comes before the next clip's speech cannot be of that.
            ends = [turn.speech for turn in turns[1:]] + [float("inf")]
            for turn, end in zip(turns, ends, strict=True):
                heard[turn.number] = _heard(turn, [(at, c) for at, c in came if turn.speech <= at < end])
        return [heard[number] for number in range(len(clips))]

    async def _run(self, clips: Sequence[Clip], way: Way) -> None:
        with _engine(self) as engine, LiveKitServer(find_or_build(), ice_lite=True) as server:
            stt = nemo.STT(model=str(self.path), chunk_ms=way.chunk_ms, engine=engine)
            agent, viewer = rtc.Room(), Viewer()
            captions = RoomCaptions(agent, stt)
            count = min(self.speakers, len(clips))
            heard = {f"speaker {i}": asyncio.Event() for i in range(count)}
            agent.on("track_subscribed", lambda track, publication, speaker: heard[speaker.identity].set())
            await viewer.join(server, NAME, "viewer")
            await join(server, NAME, "captions", room=agent, agent=True)
            reading = asyncio.create_task(self._read(viewer))
            shares = [range(i, len(clips), count) for i in range(count)]
            speaking = [
                self._speak(server, name, its, [(n, clips[n]) for n in share], way)
                for (name, its), share in zip(heard.items(), shares, strict=True)
            ]
            await asyncio.gather(*speaking)
            reading.cancel()
            await captions.aclose()
            await agent.disconnect()
            await viewer.leave()
            await stt.aclose()

    async def _read(self, viewer: Viewer) -> None:
        async for caption in viewer:
            self._came.append((time.monotonic(), caption))

    async def _speak(
        self, server: LiveKitServer, name: str, heard: asyncio.Event, share: Sequence[tuple[int, Clip]], way: Way
    ) -> None:
        turns = self._turns[name] = []
        async with Relay(server, Bursts(self.loss, seed=way.seed + share[0][0]) if self.loss else None) as relay:
            room = await join(cast(LiveKitServer, relay), NAME, name)
            microphone = await Microphone.publish(room)
            await asyncio.wait_for(heard.wait(), HEARD_WITHIN)
            await microphone.play(np.zeros(round(SETTLE * RATE), np.int16))
            for number, clip in share:
                sound, before = way.sound(clip, number)
                turns.append(_Turn(number, clip, time.monotonic(), before))
                await microphone.play(_pcm(sound))
            await room.disconnect()
        self.sent += relay.sent
        self.dropped += relay.lost


def _hear(room: Room, clips: Sequence[Clip], way: Way) -> tuple[list[Heard], int, int]:
    room.sent = room.dropped = 0
    return room.hear_here(clips, way), room.sent, room.dropped


@contextmanager
def _engine(room: Room) -> Iterator[Engine]:
    precision = cast(Literal["int8", "fp32"] | None, room.precision)
    engine = Engine(EngineConfig(str(room.path), precision, room.threads))
    try:
        engine.load(str(room.path))
        yield engine
    finally:
        engine.close()


def _heard(turn: _Turn, came: Sequence[tuple[float, Caption]]) -> Heard:
    """What was shown of that clip."""
    heard = Heard(turn.before)
    for at, caption in came:
        sample = round((at - turn.began) * SAMPLE_RATE) - turn.before
        heard.shown.append(sample)
        if caption.final:
            heard.words += [Word(text, 0, 0, 1.0) for text in caption.text.split()]
            heard.final = sample
    return heard


def _pcm(sound: Samples) -> Pcm:
    wide = soxr.resample(sound, SAMPLE_RATE, RATE)
    pcm: Pcm = (wide.clip(-1, 1) * 32767).astype(np.int16)
    return pcm

"""A process of clients: its share of a row's streams, each in real time over a connection of its own.

python -m bench.server.client CONFIG.json        # connects; "ready"; a start time on stdin; a line of JSON

Frames are sent by the clock: each is due at start + its place in the audio, never a sleep after a sleep. Latencies
count from when audio was due, so neither a slow client nor a server that does not read hides them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from bench.server.tracks import Track, load
from nemostream.protocol import SAMPLE_RATE
from nemostream_agent.protocols.errors import REFUSED, ClientError
from nemostream_agent.protocols.line import connect
from nemostream_agent.protocols.talk import Heard

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class Config:
    """One process of several.

    Attributes:
        streams: their numbers; stream i says track i modulo their number.
        spread: seconds over which the streams' starts are spread, evenly whatever their number is.
        query: parameters for the address.
    """

    url: str
    tracks: str
    streams: list[int]
    frame_ms: int = 20
    spread: float = 2.0
    key: str | None = None
    query: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What became of a stream.

    Attributes:
        text: its finals.
        first: seconds from when the frame in which speech begins was due to the first text; None: none came.
        last: seconds from when the end was sent to the last final text, or to the server's word that there is none.
        error, why: kind and sentence of what ended it; None: it came to its end.
        began, over: time.monotonic().
    """

    stream: int
    text: str = ""
    first: float | None = None
    last: float | None = None
    error: str | None = None
    why: str = ""
    began: float = 0.0
    over: float = 0.0


@dataclass(slots=True)
class Report:
    """`lag`: seconds by which this process was late with a frame that nothing held back: 99th percentile, most."""

    outcomes: list[Outcome]
    lag: tuple[float, float]


class Ears:
    """Takes a stream's texts, with their times."""

    def __init__(self, outcome: Outcome, speech_due: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._outcome, self._speech_due, self._clock = outcome, speech_due, clock
        self._finals: list[str] = []
        self._ended_at: float | None = None

    def hear(self, heard: Heard) -> None:
        now, outcome = self._clock(), self._outcome
        if not heard.text:
            return
        if outcome.first is None and now >= self._speech_due:  # what was heard in silence is not it
            outcome.first = now - self._speech_due
        if heard.final:
            self._finals.append(heard.text)
            outcome.text = " ".join(self._finals)
            if self._ended_at is not None:
                outcome.last = now - self._ended_at

    def ended(self) -> None:
        self._ended_at = self._clock()

    def over(self) -> None:
        self._outcome.over = self._clock()
        if self._outcome.last is None and self._ended_at is not None:
            self._outcome.last = self._outcome.over - self._ended_at


class Clients:
    """The streams of a Config."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tracks = load(Path(config.tracks))
        self._start: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._open = {number: asyncio.Event() for number in config.streams}
        self._lags = array("f", [0.0])

    async def run(self) -> Report:
        running = [asyncio.create_task(self._stream(number)) for number in self._config.streams]
        for opened in self._open.values():
            await opened.wait()
        print("ready", flush=True)
        self._start.set_result(float(await asyncio.to_thread(sys.stdin.readline)))
        outcomes = await asyncio.gather(*running)
        lags = np.frombuffer(self._lags, np.float32)
        return Report(outcomes, (float(np.percentile(lags, 99)), float(lags.max())))

    async def _stream(self, number: int) -> Outcome:
        config, outcome = self._config, Outcome(number)
        track = self._tracks[number % len(self._tracks)]
        try:
            async with connect(config.url, config.key, config.query) as line:
                self._open[number].set()
                start = await self._start + number * GOLDEN % 1 * config.spread
                outcome.began = start
                frame = config.frame_ms * SAMPLE_RATE // 1000
                ears = Ears(outcome, start + track.speech_at // frame * config.frame_ms / 1000)
                await line.speak(self._frames(track, frame, start), ears.hear, ears.ended)
                ears.over()
        except ClientError as error:
            outcome.error, outcome.why = error.kind, str(error)
        finally:
            self._open[number].set()
        return outcome

    async def _frames(self, track: Track, frame: int, start: float) -> AsyncIterator[bytes]:
        taken = start
        for begin in range(0, len(track.pcm), frame):
            due = start + begin / SAMPLE_RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._lags.append(time.monotonic() - max(due, taken))
            yield track.pcm[begin : begin + frame].tobytes()
            taken = time.monotonic()


async def alone(config: Config, track: Track, realtime: bool) -> str:
    """What the server understands of a track when it has no other stream.

    Raises:
        ClientError: it does not answer.
    """
    frame = config.frame_ms * SAMPLE_RATE // 1000
    start = time.monotonic()

    async def frames() -> AsyncIterator[bytes]:
        for begin in range(0, len(track.pcm), frame):
            if realtime:
                await asyncio.sleep(max(0.0, start + begin / SAMPLE_RATE - time.monotonic()))
            yield track.pcm[begin : begin + frame].tobytes()

    found: list[Heard] = []
    async with connect(config.url, config.key, config.query) as line:
        await line.speak(frames(), found.append)
    return " ".join(heard.text for heard in found if heard.final and heard.text)


async def refusal_seconds(config: Config) -> float | None:
    """How long a stream that comes now waits for its refusal, from before it connects; None: it was let in.

    Raises:
        ClientError: neither; or it is refused before there is a WebSocket.
    """
    began = time.monotonic()

    async def silence() -> AsyncIterator[bytes]:
        yield bytes(config.frame_ms * SAMPLE_RATE // 500)
        await asyncio.sleep(1.0)

    async with connect(config.url, config.key, config.query) as line:
        try:
            await line.speak(silence(), lambda _: None)
        except ClientError as error:
            if error.kind == REFUSED:
                return time.monotonic() - began
            raise
    return None


def main() -> None:
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Config)

    async def run() -> Report:
        return await Clients(config).run()

    print(json.dumps(msgspec.to_builtins(uvloop.run(run()))), flush=True)


if __name__ == "__main__":
    main()

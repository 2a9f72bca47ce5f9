"""A media process: its share of a load's streams, in real time, over the socket or with the engine in this process.

python -m bench.engine.client CONFIG.json        # a line on stdin to open, "ready" comes back; a start time

Audio is sent by the clock: at each tick whatever is due, never a sleep after a sleep. What is sent in a tick goes as
one frame (RemoteEngine). One thread sends, the engine's link has another.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from bench.engine.audio import TICK_MS, Load
from bench.engine.tap import Notes
from nemostream import process
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.protocol import NO_ENDPOINT, Close, Ended, Event, Failed, Final, Flush, Message, Open, Push, Refused
from nemostream.protocol import Started as Opened
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Place

OPEN_SECONDS, END_SECONDS = 120.0, 30.0


@dataclass(frozen=True, slots=True)
class Config:
    """One client of several: it has the streams `first`, `first + step`, ...

    Attributes:
        socket: the engine's; None: an engine in this process, of `engine`.
        sent: where the times at which each block was sent are written, (own streams, blocks) float64.
        notes: where an engine in this process writes its notes (tap.py).
    """

    load: Load
    first: int
    step: int
    sent: str
    socket: str | None
    engine: EngineConfig | None = None
    notes: str | None = None
    model: str | None = None

    @property
    def streams(self) -> range:
        return range(self.first, self.load.streams, self.step)


@dataclass(slots=True)
class Report:
    """What a client saw. `flush_ms`: of every flush, from its send to its Final; `lag_ms`: by how much the sender was
    late, 99th percentile and most; `why`: what the first refusal or failure said."""

    flush_ms: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    unanswered: int = 0
    why: str = ""
    lag_ms: tuple[float, float] = (0.0, 0.0)


class Client:
    """Streams are numbered from 1 in the order in which they are opened."""

    def __init__(self, config: Config, engine: Engine | RemoteEngine) -> None:
        self.config, self.report = config, Report()
        self._audio = [config.load.pcm(stream) for stream in config.streams]
        self._engine = engine
        self._lock = threading.Condition()
        self._answered = 0
        self._live: set[int] = set()
        self._flushed: dict[tuple[int, int], float] = {}

    def open(self) -> None:
        """Open all streams; comes back when each was answered."""
        self._connection = self._engine.connect(self._take)
        numbers = range(1, len(self.config.streams) + 1)
        options = {"model": self.config.model, "chunk_ms": self.config.load.chunk_ms, "endpointing": NO_ENDPOINT}
        self._connection.send(*(Open(number, **options) for number in numbers))  # type: ignore[arg-type]
        with self._lock:
            if not self._lock.wait_for(lambda: self._answered == len(numbers), OPEN_SECONDS):
                raise TimeoutError(f"the engine has answered {self._answered} of {len(numbers)} streams")

    def run(self, start: float) -> None:
        """Send everything, `start` being tick 0 (time.monotonic); then wait for the last answers."""
        load, lags = self.config.load, []
        period = load.block_ms // TICK_MS
        due: list[list[tuple[int, int]]] = [[] for _ in range(period)]
        for local, stream in enumerate(self.config.streams):
            if local + 1 in self._live:
                due[load.start_tick(stream) % period].append((local, stream))
        audio = self._audio
        flushes = [load.flush_after(stream) for stream in self.config.streams]
        starts = [load.start_tick(stream) for stream in self.config.streams]
        sent = np.full((len(audio), load.blocks), np.nan)
        for tick in range(max(starts, default=0) + load.blocks * period):
            at = start + tick * TICK_MS / 1000
            time.sleep(max(0.0, at - time.monotonic()))
            messages: list[Message] = []
            now = time.monotonic()
            for local, _ in due[tick % period]:
                block = (tick - starts[local]) // period
                if not 0 <= block < load.blocks or local + 1 not in self._live:
                    continue
                begin = block * load.block
                messages.append(Push(local + 1, audio[local][begin : begin + load.block], begin))
                sent[local, block] = now
                if block in flushes[local]:
                    self._flushed[local + 1, block + 1] = now
                    messages.append(Flush(local + 1, block + 1))
                if block == load.blocks - 1:
                    messages.append(Close(local + 1))
            if messages:
                self._connection.send(*messages)
                lags.append(now - at)
        self._finish()
        np.save(self.config.sent, sent)
        late = np.array(lags or [0.0]) * 1000
        self.report.lag_ms = float(np.percentile(late, 99)), float(late.max())

    def _finish(self) -> None:
        with self._lock:
            self._lock.wait_for(lambda: not self._live, END_SECONDS)
            self.report.unanswered = len(self._flushed)

    def _take(self, events: Sequence[Event]) -> None:
        """On the engine's thread, or its link's."""
        now = time.monotonic()
        with self._lock:
            for event in events:
                if isinstance(event, (Failed, Refused)):
                    self.report.why = self.report.why or f"{event.code}: {event.message}"
                if isinstance(event, Final) and event.flush_id is not None:
                    asked = self._flushed.pop((event.stream, event.flush_id), None)
                    if asked is not None:
                        self.report.flush_ms.append((now - asked) * 1000)
                elif isinstance(event, (Opened, Refused)):
                    self._answered += 1
                    self.report.refused += isinstance(event, Refused)
                    if isinstance(event, Opened):
                        self._live.add(event.stream)
                elif isinstance(event, (Ended, Failed)):
                    self._live.discard(event.stream)
                    if isinstance(event, Failed):
                        self.report.failed += 1
                        self._flushed = {key: at for key, at in self._flushed.items() if key[0] != event.stream}
            self._lock.notify_all()


def main() -> None:
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Config)
    notes = Notes()
    engine: Engine | RemoteEngine
    if config.socket is None:
        notes.install()
        engine = Engine(config.engine)
        engine.load(config.model)
    else:
        engine = RemoteEngine(Shared(Place(Path(config.socket)), spawn=False))
    client = Client(config, engine)
    if config.socket is not None:
        # Half of a client's time went into looking for circles among the pushes that its ledgers keep. What a media
        # process pays for that is its own affair; here it would be taken from the engine.
        gc.disable()
        process.keep_heap()
    sys.stdin.readline()  # our turn: owners are numbered as they come
    client.open()
    print("ready", flush=True)
    client.run(float(sys.stdin.readline()))
    report = json.dumps(msgspec.to_builtins(client.report))  # before what is still open fails with the link
    engine.close()
    if config.notes:
        notes.save(Path(config.notes))
    print(report, flush=True)


if __name__ == "__main__":
    main()

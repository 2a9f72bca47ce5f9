"""Runs the rows: processes of clients against the server, with an eye on what everyone uses.

sweep = Sweep(config, tracks, processes=2, pids={"gateway": 123})
alone = sweep.alone(realtime=False)
row = sweep.row(streams=50, round_=1)
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx2 as httpx
import msgspec

from bench.engine.processes import Children, cpu_seconds
from bench.server.client import Config, Outcome, Report, alone, refusal_seconds
from bench.server.row import Load, Row, row_of
from bench.server.tracks import Track, save
from nemostream.protocol import SAMPLE_RATE

LEAD_SECONDS = 0.5
"""Between the word to begin and the first frame."""
BATCH = ("nemostream_batch_size_count", "nemostream_batch_size_sum")


class Sweep:
    """Args:
    config: of every process of clients; `streams` and `tracks` are filled in here.
    folder: for files that go with it.
    pids: processes whose CPU is measured, by name.
    """

    def __init__(
        self,
        config: Config,
        tracks: Sequence[Track],
        folder: Path,
        processes: int,
        pids: Mapping[str, int],
    ) -> None:
        self._config = dataclasses.replace(config, tracks=str(folder / "tracks.npz"))
        self._tracks, self._folder = tracks, folder
        self._processes, self._pids = processes, pids
        self._seconds = len(tracks[0].pcm) / SAMPLE_RATE
        self._alone: list[str] = []
        save(folder / "tracks.npz", list(tracks))

    def alone(self, realtime: bool) -> list[str]:
        """What the server understands of each track alone; rows are compared with it.

        Raises:
            ClientError: it does not answer.
        """
        self._alone = [asyncio.run(alone(self._config, track, realtime)) for track in self._tracks]
        return self._alone

    def row(self, streams: int, round_: int, on_top: int = 0) -> Row:
        """`on_top`: streams that come when all others are there, one after another, to be refused.

        Raises:
            RuntimeError: a process of clients has ended early.
        """
        processes = min(self._processes, streams)
        with Children(self._folder) as children:
            clients = [
                children.start(f"clients{i}", self._client(i, list(range(i, streams, processes))))
                for i in range(processes)
            ]
            for client in clients:
                children.expect(client, "ready")
            watched = {**self._pids, **{f"clients{i}": client.pid for i, client in enumerate(clients)}}
            batches = self._batches()
            start = time.monotonic() + LEAD_SECONDS
            for client in clients:
                children.send(client, repr(start))
            time.sleep(LEAD_SECONDS + self._config.spread)
            began, before = time.monotonic(), {name: cpu_seconds(pid) for name, pid in watched.items()}
            refused = [asyncio.run(refusal_seconds(self._config)) for _ in range(on_top)]
            # While all streams run, from the last one's start to the first one's end.
            time.sleep(max(0.0, start + self._seconds - time.monotonic()))
            took = time.monotonic() - began
            cpu = {name: (cpu_seconds(pid) - before[name]) / took for name, pid in watched.items()}
            reports = [msgspec.convert(json.loads(children.last_line(client)), Report) for client in clients]
        outcomes: list[Outcome] = sorted((o for r in reports for o in r.outcomes), key=lambda o: o.stream)
        load = Load(
            client_lag_ms=(
                round(1000 * max(r.lag[0] for r in reports), 1),
                round(1000 * max(r.lag[1] for r in reports), 1),
            ),
            client_cpu=round(max(cpu[f"clients{i}"] for i in range(processes)), 3),
            cpu={name: round(cpu[name], 3) for name in self._pids},
            mean_batch=_mean_batch(batches, self._batches()),
            refused_ms=[round(1000 * s, 1) for s in refused if s is not None],
            let_in=sum(s is None for s in refused),
        )
        return row_of(round_, outcomes, [t.text for t in self._tracks], self._alone, self._seconds, load)

    def _client(self, index: int, streams: list[int]) -> list[str]:
        path = self._folder / f"clients{index}.json"
        path.write_bytes(msgspec.json.encode(dataclasses.replace(self._config, streams=streams)))
        return [sys.executable, "-m", "bench.server.client", str(path)]

    def _batches(self) -> tuple[float, float] | None:
        """Steps of the engine so far and streams in them, where /metrics says so as ours does."""
        parts = urlsplit(self._config.url)
        try:
            lines = httpx.get(f"http{parts.scheme[2:]}://{parts.netloc}/metrics", timeout=5).text.splitlines()
            values = {
                name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name in BATCH
            }
            return values[BATCH[0]], values[BATCH[1]]
        except (httpx.HTTPError, ValueError, KeyError):
            return None


def _mean_batch(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    if before is None or after is None or after[0] == before[0]:
        return None
    return round((after[1] - before[1]) / (after[0] - before[0]), 2)

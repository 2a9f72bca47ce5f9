"""The engine's process and the clients', for one row: started, fed by the clock, measured from outside, ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from bench.engine.audio import Load
from bench.engine.client import Config, Report
from bench.engine.row import Array
from nemostream.engine_config import EngineConfig
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Place

LEAD_SECONDS = 0.5
WARM_SECONDS = 2.0
"""Not counted: the first steps of each batch size make buffers."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Result:
    """What one run left behind. `sent[stream]` (blocks,): when each was sent; `owners[stream]`: owner and number in the
    notes; CPU in core seconds between `began` and `ended`, both time.monotonic()."""

    reports: list[Report]
    sent: dict[int, Array]
    owners: dict[int, tuple[int, int]]
    steps: Array
    chunks: Array
    tokens: Array
    engine_cpu: float
    client_cpu: float
    rss_mb: float
    began: float
    ended: float


def run(load: Load, engine: EngineConfig, clients: int, local: bool) -> Result:
    """Raises RuntimeError: a process ended early; the message holds the end of what it wrote."""
    with tempfile.TemporaryDirectory(prefix="nemobench-") as folder:
        return _Run(Path(folder), load, engine, 1 if local else clients, local)()


class _Run:
    def __init__(self, folder: Path, load: Load, engine: EngineConfig, clients: int, local: bool) -> None:
        self.folder, self.load, self.engine, self.local = folder, load, engine, local
        self.notes = folder / "notes.npz"
        self.place = Place(folder / "run" / "engine.sock")
        socket = None if local else str(self.place.socket)
        self.configs = [
            Config(
                load,
                first=index,
                step=clients,
                sent=str(folder / f"sent{index}.npy"),
                socket=socket,
                engine=replace(engine, max_streams=max(1, load.streams)) if local else None,
                notes=str(self.notes) if local else None,
            )
            for index in range(min(clients, load.streams))
        ]

    def __call__(self) -> Result:
        with Children(self.folder) as children:
            server = None if self.local else children.start("engine", self._serve())
            if server is not None:
                control = RemoteEngine(Shared(self.place, spawn=False))
                children.wait_for(self.place.socket, server)
                control.load(None)
            clients = [children.start(f"client{i}", self._client(config)) for i, config in enumerate(self.configs)]
            for client in clients:  # one after the other: owners are numbered in this order
                children.send(client, "open")
                children.expect(client, "ready")
            began = time.monotonic() + LEAD_SECONDS
            for client in clients:
                children.send(client, repr(began))
            measured = server or clients[0]
            time.sleep(max(0.0, began + WARM_SECONDS - time.monotonic()))
            before = cpu_seconds(measured.pid), sum(cpu_seconds(c.pid) for c in clients)
            counted_from = time.monotonic()
            end = began + self.load.blocks * self.load.block_ms / 1000
            time.sleep(max(0.0, end - time.monotonic()))
            after = cpu_seconds(measured.pid), sum(cpu_seconds(c.pid) for c in clients)
            ended, rss = time.monotonic(), rss_mb(measured.pid)
            reports = [msgspec.convert(json.loads(children.last_line(client)), Report) for client in clients]
            if server is not None:
                control.close()
                server.terminate()
                server.wait(60)
        with np.load(self.notes) as notes:
            steps, chunks, tokens = notes["steps"], notes["chunks"], notes["tokens"]
        first_owner = 1 if self.local else 2  # the control link is the first one's
        return Result(
            reports=reports,
            sent={s: row for c in self.configs for s, row in zip(c.streams, np.load(c.sent), strict=True)},
            owners={s: (first_owner + i, n + 1) for i, c in enumerate(self.configs) for n, s in enumerate(c.streams)},
            steps=steps,
            chunks=chunks,
            tokens=tokens,
            engine_cpu=after[0] - before[0],
            client_cpu=0.0 if self.local else after[1] - before[1],
            rss_mb=rss,
            began=counted_from,
            ended=ended,
        )

    def _serve(self) -> list[str]:
        engine = self.engine
        command = [sys.executable, "-m", "bench.engine.tap", str(self.notes), "serve"]
        command += ["--socket", str(self.place.socket), "--max-streams", str(max(1, self.load.streams))]
        command += ["--encoder", engine.encoder]
        for name, value in (("model", engine.model), ("precision", engine.precision), ("threads", engine.threads)):
            command += [f"--{name}", str(value)] if value is not None else []
        return command

    def _client(self, config: Config) -> list[str]:
        path = self.folder / f"client{config.first}.json"
        path.write_bytes(msgspec.json.encode(config))
        return [sys.executable, "-m", "bench.engine.client", str(path)]


Child = subprocess.Popen[str]


class Children:
    """Processes that end with the block, whatever happens; what they write to stderr is kept for errors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[tuple[str, Child]] = []

    def __enter__(self) -> Children:
        return self

    def start(self, name: str, command: list[str]) -> Child:
        with (self._folder / f"{name}.log").open("w") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ
            )
        self._started.append((name, child))
        return child

    def send(self, child: Child, line: str) -> None:
        assert child.stdin is not None
        try:
            child.stdin.write(line + "\n")
            child.stdin.flush()
        except BrokenPipeError as error:
            raise self._early(child) from error

    def expect(self, child: Child, line: str) -> None:
        assert child.stdout is not None
        while (found := child.stdout.readline()) != line + "\n":
            if not found:
                raise self._early(child)

    def last_line(self, child: Child) -> str:
        assert child.stdout is not None
        lines = child.stdout.read().splitlines()
        if child.wait() or not lines:
            raise self._early(child)
        return lines[-1]

    def wait_for(self, socket: Path, child: Child) -> None:
        while not socket.exists():
            if child.poll() is not None:
                raise self._early(child)
            time.sleep(0.05)

    def _early(self, child: Child) -> RuntimeError:
        name = next(name for name, other in self._started if other is child)
        log = (self._folder / f"{name}.log").read_text().strip()
        return RuntimeError(f"the {name}'s process ended early: {log[-500:] or 'it wrote nothing'}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, child in self._started:
            if child.poll() is None:
                child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS")), 0.0)

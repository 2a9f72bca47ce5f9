"""Runs the rows: processes of sessions against our gateway, with an eye on what everyone uses.

with WhipGateway(["--max-streams", "20"]) as gateway:
    row = Sweep(config, plans, folder, processes=2, gateway=gateway).row(20, round_=1, weather=Weather(), on_top=10)
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
import msgspec

from bench.engine.processes import Child, Children, cpu_seconds, rss_mb
from bench.server.gateway import Gateway
from bench.whip.client import SDP, new_offer
from bench.whip.load import Config, Outcome, Weather
from bench.whip.plan import Plan, save
from bench.whip.row import Cost, Row, row_of
from nemostream.protocol import SAMPLE_RATE

LEAD_SECONDS = 0.5
"""Between the word to begin and the first POST."""
SETTLE_SECONDS = 3.0
"""Behind the last session's start, until all are connected."""
LOG_SECONDS = 20.0


class WhipGateway(Gateway):
    """On 127.0.0.1, media too."""

    def __init__(self, options: Sequence[str]) -> None:
        super().__init__(["--ice-address", "127.0.0.1", *options])

    def streams(self) -> list[dict[str, Any]]:
        """What the log says of each session that is over."""
        found = (json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{"))
        return [line for line in found if line.get("message") == "stream" and line.get("protocol") == "whip"]


class Sweep:
    """Args:
    config: of every process of sessions; `sessions`, `plans`, `http` and `weather` are filled in here.
    folder: for files that go with it.
    direct: without loss there is no line between the sessions and the gateway.
    """

    def __init__(
        self, config: Config, plans: Sequence[Plan], folder: Path, processes: int, gateway: WhipGateway, direct: bool
    ) -> None:
        path = folder / "plans.msgpack"
        self._config = dataclasses.replace(config, plans=str(path), http=gateway.http)
        self._plans, self._folder, self._gateway = plans, folder, gateway
        self._processes, self._direct = processes, direct
        save(path, list(plans))

    def row(self, sessions: int, round_: int, weather: Weather, on_top: int = 0) -> Row:
        """`on_top`: POSTs that come when all sessions are there, one after another, to be refused.

        Raises:
            RuntimeError: a process of sessions has ended early, or the gateway does not come to rest.
        """
        logged = len(self._gateway.streams())
        processes = min(self._processes, sessions)
        with Children(self._folder) as children:
            shares = [list(range(i, sessions, processes)) for i in range(processes)]
            clients = [children.start(f"sessions{i}", self._command(i, s, weather)) for i, s in enumerate(shares)]
            for client in clients:
                children.expect(client, "ready")
            pids = {**self._gateway.pids(), **{f"sessions{i}": client.pid for i, client in enumerate(clients)}}
            start = time.monotonic() + LEAD_SECONDS
            for client in clients:
                children.send(client, repr(start))
            time.sleep(LEAD_SECONDS + self._config.spread + SETTLE_SECONDS)
            began, before = time.monotonic(), {name: cpu_seconds(pid) for name, pid in pids.items()}
            refused = asyncio.run(self._refused(on_top)) if on_top else []
            # While all sessions run: until the first one ends.
            time.sleep(max(0.0, start + min(plan.seconds for plan in self._plans) - time.monotonic()))
            took = time.monotonic() - began
            used = {name: (cpu_seconds(pid) - before[name]) / took for name, pid in pids.items()}
            rss = {name: rss_mb(pid) for name, pid in pids.items()}
            outcomes = list(self._outcomes(children, clients))
        cost = Cost(
            cpu={name: round(used[name] / sessions, 4) for name in self._gateway.pids()},
            rss_mb={name: round(rss[name], 1) for name in self._gateway.pids()},
            client_cpu=round(max(used[f"sessions{i}"] for i in range(processes)), 3),
            missing_seconds=self._missing(logged, sum(o.error is None for o in outcomes)),
            refused_ms=[round(1000 * seconds, 1) for status, seconds, _ in refused if status == 503],
            retry_after=all(told for status, _, told in refused if status == 503),
            let_in=sum(status != 503 for status, _, _ in refused),
        )
        return row_of(round_, weather, sorted(outcomes, key=lambda o: o.session), self._plans, cost)

    def _outcomes(self, children: Children, clients: Sequence[Child]) -> Iterator[Outcome]:
        for client in clients:
            yield from msgspec.convert(json.loads(children.last_line(client)), list[Outcome])

    def _command(self, index: int, sessions: list[int], weather: Weather) -> list[str]:
        path = self._folder / f"sessions{index}.json"
        line = None if self._direct and weather == Weather() else weather
        path.write_bytes(msgspec.json.encode(dataclasses.replace(self._config, sessions=sessions, weather=line)))
        return [sys.executable, "-m", "bench.whip.load", str(path)]

    async def _refused(self, count: int) -> list[tuple[int, float, bool]]:
        """Status, seconds and whether there is a Retry-After, of POSTs one after another."""
        headers = SDP if self._config.key is None else {**SDP, "Authorization": f"Bearer {self._config.key}"}
        found: list[tuple[int, float, bool]] = []
        async with httpx.AsyncClient(base_url=self._config.http) as http:
            for _ in range(count):
                offer = await new_offer()
                began = time.monotonic()
                response = await http.post("/whip/bench-more", content=offer, headers=headers)
                found.append((response.status_code, time.monotonic() - began, "retry-after" in response.headers))
        return found

    def _missing(self, logged: int, expected: int) -> float | None:
        """Filled and left out, of all sessions behind the first `logged` lines of the log."""
        deadline = time.monotonic() + LOG_SECONDS
        while len(lines := self._gateway.streams()[logged:]) < expected and time.monotonic() < deadline:
            time.sleep(0.1)
        names = ("filled", "gaps")  # in samples
        if not all(name in line for line in lines for name in names):
            return None
        return round(sum(int(line[name]) for line in lines for name in names) / SAMPLE_RATE, 3)

"""A process of WHIP sessions, each with a peer connection and a line of its own.

python -m bench.whip.load CONFIG.json        # "ready"; a start time on stdin; a line of JSON
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import msgspec
import numpy as np
import uvloop

from bench.whip.client import Refused, WhipClient
from bench.whip.inbox import WAIT_SECONDS, Inbox
from bench.whip.line import Impairment, Line, Poor
from bench.whip.plan import Plan, load
from bench.whip.talk import PACKET_SECONDS, Talk

SEED_STEP = 1000
LATE_PERCENTILE = 99


@dataclass(frozen=True, slots=True)
class Weather:
    """What the line does to audio packets in the track: parts of them, and seconds. `burst`: mean run of lost ones."""

    loss: float = 0.0
    burst: float | None = None
    reorder: float = 0.0
    late: float = 0.05


@dataclass(frozen=True, slots=True)
class Config:
    """One process of several.

    Attributes:
        http: address of the gateway.
        plans: file of them; session i has plan i modulo their number.
        sessions: their numbers.
        rooms: session i is in room i modulo this.
        spread: seconds over which the sessions' POSTs are spread.
        weather: None: no line at all, media goes straight to the gateway.
        seed: another one loses other packets.
        query: parameters of the POST.
    """

    http: str
    plans: str
    sessions: list[int]
    rooms: int
    spread: float = 2.0
    weather: Weather | None = None
    seed: int = 0
    key: str | None = None
    query: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What became of a session.

    Attributes:
        words: of its finals in the track, with begin and end in seconds.
        shown: for each word that was the last of an interim and later than all before: its end, and seconds from when
            the packet with that was due to the interim's arrival.
        final: the same of the last words of finals.
        error: what ended it early; None: it came to its end.
        connected: seconds from the POST to the open data channel.
        sent, lost, late: audio packets.
        lag: seconds by which packets were late here, 99th percentile.
    """

    session: int
    words: list[tuple[str, float, float]] = field(default_factory=list)
    shown: list[tuple[float, float]] = field(default_factory=list)
    final: list[tuple[float, float]] = field(default_factory=list)
    error: str | None = None
    connected: float = 0.0
    sent: int = 0
    lost: int = 0
    late: int = 0
    lag: float = 0.0


def delays(inbox: Inbox, speaker: str, began_at: float, kind: str) -> list[tuple[float, float]]:
    """Messages of a kind whose last word is new: where it ends, and how long after its packet was due they came.
    `began_at`: Unix time of the speaker's first sample."""
    found: list[tuple[float, float]] = []
    latest = 0.0
    for message in inbox.messages:
        data = message.data
        if data["type"] != kind or data["speaker"] != speaker or data["end"] <= latest:
            continue
        latest = data["end"]
        due = began_at + -(-latest // PACKET_SECONDS) * PACKET_SECONDS
        found.append((latest, message.at - due))
    return found


def impair(plan: Plan, weather: Weather, seed: int) -> Impairment:
    """In the track, and not in the sentences around it."""
    poor = Poor(weather.loss, weather.burst, weather.reorder, weather.late, seed=seed)
    return lambda number: poor(number) if plan.begins <= number * PACKET_SECONDS < plan.ends else (0.0,)


class Sessions:
    """Those of a Config."""

    def __init__(self, config: Config, http: httpx.AsyncClient) -> None:
        self._config, self._http = config, http
        self._plans = load(Path(config.plans))

    async def run(self, start: float) -> list[Outcome]:
        return await asyncio.gather(*(self._session(number, start) for number in self._config.sessions))

    async def _session(self, number: int, start: float) -> Outcome:
        config, outcome = self._config, Outcome(number)
        plan = self._plans[number % len(self._plans)]
        line = None
        if config.weather is not None:
            line = Line(impair(plan, config.weather, config.seed * SEED_STEP + number))
        room = f"bench-{number % config.rooms}"
        client = WhipClient(self._http, room, Talk(tuple(plan.packets)), line=line, name=f"s{number}", **config.query)
        await asyncio.sleep(start + number / (max(self._config.sessions) + 1) * config.spread - time.monotonic())
        posted = time.monotonic()
        try:
            async with client:
                await client.connected()
                outcome.connected = time.monotonic() - posted
                await client.inbox.until(lambda: client.speaker.done.is_set() or client.inbox.over, plan.seconds + 30)
                if client.inbox.over:
                    outcome.error = "ended early"
                elif (deleted := await client.delete()).status_code != 200:
                    outcome.error = f"DELETE: {deleted.status_code}"
        except Refused as error:
            outcome.error = f"refused {error.response.status_code}"
        except (TimeoutError, EOFError, httpx.HTTPError) as error:
            outcome.error = type(error).__name__
        if failed := client.inbox.of("failed"):
            outcome.error = failed[-1]["code"]
        rooms = client.inbox.of("room")
        you, began_at = (rooms[0]["you"] if rooms else ""), client.speaker.began_at
        outcome.shown = delays(client.inbox, you, began_at, "interim")
        outcome.final = delays(client.inbox, you, began_at, "final")
        outcome.words = [
            (word["text"], word["start"], word["end"])
            for final in client.inbox.of("final", you)
            for word in final["words"]
            if plan.begins <= word["start"] < plan.ends
        ]
        if line is not None:
            outcome.sent, outcome.lost, outcome.late = line.sent, line.lost, line.late
        if client.speaker.lags:
            outcome.lag = float(np.percentile(client.speaker.lags, LATE_PERCENTILE))
        return outcome


async def run(config: Config) -> list[Outcome]:
    headers = {} if config.key is None else {"Authorization": f"Bearer {config.key}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=config.http, headers=headers, limits=limits, timeout=WAIT_SECONDS) as http:
        sessions = Sessions(config, http)
        print("ready", flush=True)
        return await sessions.run(float(await asyncio.to_thread(sys.stdin.readline)))


def main() -> None:
    config = msgspec.convert(json.loads(Path(sys.argv[1]).read_text()), Config)
    print(msgspec.json.encode(uvloop.run(run(config))).decode(), flush=True)


if __name__ == "__main__":
    main()

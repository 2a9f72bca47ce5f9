"""LiveKit's dispatch sees the engine that all jobs of a machine share."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest
from livekit.agents import AgentServer
from livekit.agents.worker import ServerOptions

from livekit.plugins import nemo
from nemostream.protocol import Close, Ended, Event, Open, Started
from tests.serving import EngineProcess, new_place


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> AgentServer:
    """A worker whose CPUs are a tenth busy, by LiveKit's own figure."""
    monkeypatch.setattr(ServerOptions, "load_fnc", lambda server: 0.1)
    return AgentServer(load_fnc=nemo.load)


def test_without_an_engine_it_is_the_cpus(server: AgentServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with new_place() as place:
        monkeypatch.setenv("NEMOSTREAM_SOCKET", str(place.socket))
        assert nemo.load(server) == 0.1


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProcess]:
    with EngineProcess("--max-streams", "4") as process:
        monkeypatch.setenv("NEMOSTREAM_SOCKET", str(process.place.socket))
        yield process


def test_rows_that_are_taken_count(server: AgentServer, process: EngineProcess) -> None:
    engine, heard = process.engine(), queue.Queue[Event]()
    engine.load()

    def take(events: object) -> None:
        for event in events:  # type: ignore[attr-defined]
            heard.put(event)

    connection = engine.connect(take)
    for streams, wanted in ((2, 0.5), (4, 1.0)):
        connection.send(*(Open(i) for i in range(streams - 2, streams)))
        assert all(isinstance(heard.get(timeout=20), Started) for _ in range(2))
        assert nemo.load(server) == wanted
    connection.send(*(Close(i) for i in range(4)))
    assert all(isinstance(heard.get(timeout=20), Ended) for _ in range(4))
    assert nemo.load(server) == 0.1

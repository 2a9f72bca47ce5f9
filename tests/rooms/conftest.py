"""One real livekit-server and one real engine for all tests in rooms; each test has a room of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nemostream.engine import Engine, EngineConfig


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    engine = Engine(EngineConfig())
    engine.load(None)
    yield engine
    engine.close()


@pytest.fixture
def room_name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)

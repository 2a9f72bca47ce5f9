"""Each test has a room of its own on the one livekit-server."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def room_name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def own_engine(tmp_path: Path) -> dict[str, str]:
    """The environment of a program whose engine is no one else's, and ends soon after it."""
    return {"NEMOSTREAM_SOCKET": str(tmp_path / "engine.sock"), "NEMOSTREAM_IDLE_EXIT": "2"}

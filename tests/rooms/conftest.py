"""Each test has a room of its own on the one livekit-server."""

from __future__ import annotations

import pytest


@pytest.fixture
def room_name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)

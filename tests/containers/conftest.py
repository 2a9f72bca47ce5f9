"""The image's gateway, run without the image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.containers.files import DOCKERFILES
from tests.gateway.process import GatewayProcess


@pytest.fixture(scope="session")
def running() -> Iterator[GatewayProcess]:
    """The gateway with the image's environment, but at a socket of its own."""
    places = "NEMOSTREAM_SOCKET", "XDG_CACHE_HOME"
    own = {name: value for name, value in DOCKERFILES[0].environment.items() if name not in places}
    with GatewayProcess(environment=own) as gateway:
        yield gateway

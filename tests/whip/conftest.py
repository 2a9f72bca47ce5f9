"""One gateway for the tests that change nothing in it; tests of limits and leaks have their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx2 as httpx
import pytest

from bench.whip.inbox import WAIT_SECONDS
from tests.gateway.process import GatewayProcess
from tests.whip.talks import LOCAL, ORIGIN


@pytest.fixture(scope="session")
def gateway() -> Iterator[GatewayProcess]:
    """With the embedded model and no keys. Whatever it is asked, nothing fails that it did not foresee."""
    with GatewayProcess(*LOCAL, "--cors-origin", ORIGIN) as running:
        yield running
        assert "Traceback" not in running.log()


@pytest.fixture
async def http(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.http, timeout=WAIT_SECONDS) as client:
        yield client

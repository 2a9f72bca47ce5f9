"""One gateway for the tests that change nothing in it; tests of limits and ends have their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.guarded import Guarded, guarded
from tests.gateway.process import GatewayProcess


@pytest.fixture(scope="session")
def gateway() -> Iterator[GatewayProcess]:
    """With the embedded model and no keys; short limits would be in the way of a busy machine."""
    with GatewayProcess() as running:
        yield running


@pytest.fixture(scope="session")
def watched() -> Iterator[Guarded]:
    """With a key, a log and traces."""
    with guarded() as running:
        yield running

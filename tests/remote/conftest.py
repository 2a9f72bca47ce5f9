"""The toy model, as the engine's tests have it, served to clients that talk beside each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nemostream import idle
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from tests.engine.conftest import loud_is_speech, toy, toy_int8
from tests.remote.neighbour import Neighbour
from tests.remote.raw import eventually
from tests.serving import ServedEngine

__all__ = ["loud_is_speech", "toy", "toy_int8"]


@pytest.fixture(scope="module")
def served(toy_bundle: Bundle) -> Iterator[ServedEngine]:
    engine = ServedEngine(Engine(EngineConfig(str(toy_bundle.path), "fp32", threads=1, max_streams=12)))
    engine.load()
    with pytest.MonkeyPatch.context() as patch:
        # Or a source that pauses, because the machine is busy, would have its words finalised in the middle.
        patch.setattr(idle, "IDLE_SECONDS", 3600.0)
        yield engine
    engine.close()


@pytest.fixture
def neighbour(served: ServedEngine, toy: Model, request: pytest.FixtureRequest) -> Iterator[Neighbour]:
    neighbour = Neighbour(served, toy, len(request.node.name))
    neighbour.half()
    yield neighbour
    neighbour.end()
    eventually(lambda: served.open_streams == 0)

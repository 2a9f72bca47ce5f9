"""STTs on the real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.models.bundle import Bundle
from nemostream.protocol import NO_ENDPOINT
from tests.serving import ServedEngine


@pytest.fixture(scope="session")
def engine() -> Iterator[ServedEngine]:
    """The embedded model behind the socket, as STT() has it; the rooms' tests have it in their process."""
    served = ServedEngine(Engine(EngineConfig()))
    served.load(None)
    yield served
    served.close()


@pytest.fixture
async def stt(engine: Engine) -> AsyncIterator[nemo.STT]:
    stt = nemo.STT(engine=engine)
    yield stt
    await stt.aclose()


@pytest.fixture
async def toy_stt(engine: Engine, toy_bundle: Bundle) -> AsyncIterator[nemo.STT]:
    """The toy language: unlike the small English model it was trained on more than one sentence in a row. Its words
    are further apart than those of speech, so only requests end a segment."""
    stt = nemo.STT(model=str(toy_bundle.path), chunk_ms=160, engine=engine, endpointing=NO_ENDPOINT)
    yield stt
    await stt.aclose()

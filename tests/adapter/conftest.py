"""One real engine with the embedded English model for all tests of the adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from livekit.plugins import nemo
from nemostream.engine import Engine, EngineConfig
from nemostream.models.bundle import Bundle
from nemostream.protocol import Endpointing


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    engine = Engine(EngineConfig())
    engine.load(None)
    yield engine
    engine.close()


@pytest.fixture
async def stt(engine: Engine) -> AsyncIterator[nemo.STT]:
    stt = nemo.STT(engine=engine)
    yield stt
    await stt.aclose()


@pytest.fixture
async def toy_stt(engine: Engine, toy_bundle: Bundle) -> AsyncIterator[nemo.STT]:
    """The toy language: unlike the small English model it was trained on more than one sentence in a row. Its words
    are further apart than those of speech, so only requests end a segment."""
    stt = nemo.STT(model=str(toy_bundle.path), chunk_ms=160, engine=engine, endpointing=Endpointing(blank_ms=None))
    yield stt
    await stt.aclose()

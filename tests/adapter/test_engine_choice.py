"""Which engine an STT uses."""

from __future__ import annotations

import pytest

from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.models.bundle import Bundle
from nemostream.remote import RemoteEngine, Shared


@pytest.mark.parametrize(("spawn", "wanted"), [(None, True), ("1", True), ("0", False)])
async def test_the_machines_engine_is_the_default(
    monkeypatch: pytest.MonkeyPatch, spawn: str | None, wanted: bool
) -> None:
    """NEMOSTREAM_SPAWN=0: where it is a service, agents wait for it."""
    monkeypatch.delenv("NEMOSTREAM_SPAWN", raising=False)
    if spawn is not None:
        monkeypatch.setenv("NEMOSTREAM_SPAWN", spawn)
    async with nemo.STT() as stt:
        engine = stt._engine()
        assert isinstance(engine, RemoteEngine) and engine.config == Shared(spawn=wanted)


async def test_local_is_an_engine_in_this_process() -> None:
    async with nemo.STT(engine="local") as stt:
        assert isinstance(stt._engine(), Engine)


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'shared', 'local'"):
        nemo.STT(engine="remote")  # type: ignore[arg-type]


def test_a_path_means_the_same_to_the_engines_process(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has another working directory; a name stays a name."""
    monkeypatch.chdir(toy_bundle.path.parent)
    assert nemo.STT(model=toy_bundle.path.name).model == str(toy_bundle.path)
    assert nemo.STT(model="en-starter").model == "en-starter"


async def test_the_device_is_that_of_the_engine_that_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEMOSTREAM_SPAWN", raising=False)
    async with nemo.STT(device="cuda") as stt:
        assert stt._engine().config == Shared(device="cuda")
    async with nemo.STT(device="cuda", engine="local") as stt:
        assert stt._engine().config == EngineConfig(device="cuda")
    monkeypatch.setenv("NEMOSTREAM_DEVICE", "cuda")
    async with nemo.STT(engine="local") as stt:
        assert stt._engine().config == EngineConfig(device="cuda")
    async with nemo.STT(device="cpu", engine="local") as stt:
        assert stt._engine().config == EngineConfig()


def test_a_device_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="'cpu' or 'cuda', not 'tpu'"):
        nemo.STT(device="tpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="device is the engine's"):
        nemo.STT(device="cuda", engine=RemoteEngine(Shared()))

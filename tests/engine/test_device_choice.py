"""Where an engine computes: how it is asked for, and what is said where that cannot be."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nemostream.__main__ import app
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import DeviceError, NemostreamError
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Event, Final, Flush, Open, Push, Refused, Started
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Place
from tests.engine.conftest import utterance

NO_TORCH = (
    r"needs torch, which is not installed .*; run pip install 'livekit-plugins-nemo\[convert\]', or use device cpu"
)
AWAY = ("nemostream.device", "nemostream.encoders.t", "nemostream.encoders.resident")
"""Modules that import torch."""
NO_GPU = r"device cuda: torch \S+ \(built for .*\) finds no GPU; install NVIDIA's driver .* or use device cpu"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith(AWAY)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)


def test_a_missing_gpu_is_one_sentence(toy_bundle: Bundle, no_gpu: None) -> None:
    with pytest.raises(DeviceError, match=NO_GPU):
        Model.load(toy_bundle.path, None, None, device="cuda")


def test_a_missing_torch_is_one_sentence(toy_bundle: Bundle, no_torch: None) -> None:
    with pytest.raises(DeviceError, match=NO_TORCH):
        Model.load(toy_bundle.path, None, None, device="cuda")
    assert Model.load(toy_bundle.path, "fp32", 1).precision == "fp32"  # the CPU does without


def test_a_precision_belongs_to_a_device(toy_bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match="torch computes in fp32, bf16, fp16, not int8; choose one, or device cpu"):
        Model.load(toy_bundle.path, "int8", None, "torch")
    with pytest.raises(NemostreamError, match="holds fp32, int8, not bf16"):
        Model.load(toy_bundle.path, "bf16", None)
    assert Model.load(toy_bundle.path, None, None, "torch").precision == "fp32"


def test_a_stream_is_told_that_the_device_is_not_here(toy_bundle: Bundle, no_gpu: None) -> None:
    engine = Engine(EngineConfig(str(toy_bundle.path), device="cuda"))
    events: list[Event] = []
    connection = engine.connect(events.extend)
    try:
        connection.send(Open(stream=1))
        _until(lambda: bool(events))
    finally:
        engine.close()
    (refused,) = events
    assert isinstance(refused, Refused) and refused.code == "DeviceError" and refused.retry_after is None


def test_an_engine_in_torch_serves(toy_bundle: Bundle) -> None:
    engine = Engine(EngineConfig(str(toy_bundle.path), "bf16", encoder="torch"))
    events: list[Event] = []
    connection = engine.connect(events.extend)
    try:
        connection.send(Open(stream=1, chunk_ms=160), Push(1, utterance(3), 0), Flush(1, flush_id=7))
        _until(lambda: any(getattr(e, "flush_id", None) == 7 for e in events))
        described = engine.describe()
    finally:
        engine.close()
    assert isinstance(events[0], Started)
    assert any(isinstance(e, Final) and e.text for e in events)
    (model,) = described.models
    assert (model.precision, described.device) == ("bf16", "cpu") and model.backend.startswith("torch ")


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_service_does_not_start_without_its_device(tmp_path: Path, no_gpu: None, how: str) -> None:
    """At once, and not when the first stream comes."""
    options = ["--device", "cuda"] if how == "option" else []
    environment = {"NEMOSTREAM_DEVICE": "cuda"} if how == "environment" else {}
    result = CliRunner().invoke(app, ["serve", "--socket", str(tmp_path / "s"), *options], env=environment)
    assert isinstance(result.exception, DeviceError)
    assert not (tmp_path / "s").exists()


def test_another_device_is_no_option(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--socket", str(tmp_path / "s"), "--device", "tpu"])
    assert result.exit_code == 2 and "tpu is no device; there are cpu, cuda" in " ".join(result.output.split())


def test_an_engine_that_is_started_gets_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever asked for it is told why there is none."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    engine = RemoteEngine(Shared(Place(tmp_path / "run" / "s"), device="cuda"))
    try:
        with pytest.raises(NemostreamError, match="an engine could not be started: nemostream: device cuda: torch"):
            engine.load(None)
    finally:
        engine.close()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)

"""The names that the servers which the gateway takes the place of have for their settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemostream.errors import DeviceError
from nemostream.model import Model
from nemostream.models import catalog
from nemostream_agent.gateway import cli
from nemostream_agent.gateway.legacy import SettingsError, chunk_ms_of, device_of
from tests.engine.driver import Driver
from tests.gateway.clients import pcm, ws
from tests.gateway.process import GatewayProcess

COMMAND = [sys.executable, "-m", "nemostream_agent", "gateway"]


@pytest.mark.parametrize(
    ("context", "chunk_ms"),
    [("70,0", 80), ("70,1", 160), ("70,6", 560), ("70,13", 1120), ("70,16", 560), ("70,33", 1120), ("[70, 13]", 1120)],
)
def test_a_models_context_is_a_chunk(context: str, chunk_ms: int) -> None:
    assert chunk_ms_of(context) == chunk_ms


@given(st.text(max_size=9))
def test_what_is_no_context_is_a_typed_error(context: str) -> None:
    try:
        assert chunk_ms_of(context) >= 80
    except SettingsError as error:
        assert "ASR_ATT_CTX" in str(error)


def test_a_device_is_the_processor_or_a_gpu_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [device_of(name) for name in (None, "", "auto", "cpu", "CPU")] == [None, None, None, "cpu", "cpu"]
    with pytest.raises(SettingsError, match="is cpu or cuda, not tpu"):
        device_of("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no GPU"):
        device_of("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("CUDA:0") == "cuda"


@pytest.mark.parametrize(
    "setting",
    [
        "ASR_ATT_CTX=x",
        "ASR_ATT_CTX=70",
        "ASR_DEVICE=tpu",
        "ASR_DECODER=beam",
        "ASR_PORT=high",
        "ASR_MAX_BATCH=0",
        "NEMOSTREAM_IDLE_SECONDS=never",
        "NEMOSTREAM_API_KEYS=,",
        "NEMOSTREAM_LIVEKIT_TOKENS=1",
    ],
)
def test_a_setting_that_means_nothing_is_one_sentence_and_no_start(
    setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _, value = setting.partition("=")
    for other in [n for n in os.environ if n.startswith(("ASR_", "NEMOSTREAM_", "LIVEKIT_"))]:
        monkeypatch.delenv(other)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["gateway"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (1, 2)
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("nemostream-agent")
    option = "--" + name.partition("_")[2].lower().replace("_", "-")
    assert name in sentence or option in sentence


@pytest.fixture(scope="module")
def legacy() -> Iterator[GatewayProcess]:
    names = {"HOST": "127.0.0.1", "PORT": "1", "MODEL": str(catalog.resolve(None)), "ATT_CTX": "70,33"}
    names |= {"DECODER": "ctc", "DEVICE": "cpu", "STEP_MS": "100", "MAX_BATCH": "1"}
    with GatewayProcess(environment={f"ASR_{name}": value for name, value in names.items()}) as running:
        yield running


def test_the_model_and_the_batch_reach_the_engine_that_it_starts(legacy: GatewayProcess) -> None:
    health = legacy.health()
    assert health["engine"]["max_batch"] == 1  # type: ignore[index]
    assert health["model"] and health["models"] == [health["model"]]
    assert "ASR_STEP_MS is not needed" in legacy.log()


async def test_the_context_and_the_decoder_are_those_of_streams(legacy: GatewayProcess) -> None:
    data = pcm("music")
    driver = Driver(Model.load(catalog.resolve(None), None, None), chunk_ms=1120, decoder="ctc", endpointing=None)
    driver.open(1)
    driver.push(1, np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768))
    driver.close(1)
    before = legacy.metric("nemostream_step_seconds_count")
    assert (await ws(f"{legacy.ws}/ws", data)).text == driver.text(1)
    steps = legacy.metric("nemostream_step_seconds_count") - before
    assert steps <= 2 * len(data) / 32 / 1120 + 2, "no more steps than chunks of that size, and their looks, need"


async def test_clients_may_name_the_model_and_no_other(legacy: GatewayProcess) -> None:
    refused = await ws(f"{legacy.ws}/ws?model=another", b"")
    assert refused.code == 1008 and "another" in refused.reason


def test_host_and_port_are_where_it_listens(gateway: GatewayProcess, tmp_path: Path) -> None:
    """At a port that is taken: it says so, and ends."""
    port = gateway.http.rpartition(":")[2]
    names = {
        "ASR_HOST": "127.0.0.1",
        "ASR_PORT": port,
        "NEMOSTREAM_SPAWN": "0",
        "NEMOSTREAM_SOCKET": str(tmp_path / "s"),
    }
    done = subprocess.run(COMMAND, env={**os.environ, **names}, capture_output=True, text=True, timeout=60)
    assert done.returncode and not done.stdout
    assert "address already in use" in done.stderr and "Traceback" not in done.stderr

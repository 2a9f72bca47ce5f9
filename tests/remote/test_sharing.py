"""Many processes, one engine: one copy of the weights, one batch, the same text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nemostream.model import Model
from nemostream.models import catalog
from nemostream.probe import probe
from nemostream.protocol import NO_ENDPOINT
from tests.engine.driver import Driver, load
from tests.proof.speech import sentences
from tests.serving import EngineProcess

SECONDS = 2.0


def talk(process: EngineProcess, clients: int, streams: int) -> list[dict[str, object]]:
    """That many client processes at once, each with that many streams."""
    command = [sys.executable, "-m", "tests.remote.talker", str(process.place.socket), str(streams), str(SECONDS)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
    outputs = [client.communicate(timeout=60)[0] for client in running]
    assert all(client.returncode == 0 for client in running)
    return [json.loads(output) for output in outputs]


def stats(process: EngineProcess) -> dict[str, float]:
    found = probe(process.place)
    assert found is not None
    return found


def maps(pid: int, name: str) -> int:
    """How often a file of that name is mapped into the process."""
    return Path(f"/proc/{pid}/maps").read_text().count(name)


def test_three_hundred_streams_of_four_processes_share_their_steps() -> None:
    with EngineProcess("--encoder", "null", "--max-streams", "300") as process:
        process.engine().load()
        answers = talk(process, 4, 75)
        assert [len(a["flush_to_final"]) for a in answers] == [75] * 4  # type: ignore[arg-type]
        after = stats(process)
        assert after["streams"] == 0
        assert after["mean_batch"] > 8, after
        # 300 streams, a chunk each 160 ms: alone they would be 300 * 3 / 0.16 calls.
        assert after["encoder_calls"] < 300 * SECONDS / 0.16 / 8


@pytest.fixture(scope="module")
def embedded() -> Model:
    return load(catalog.resolve(None), "int8")


def test_the_text_is_that_of_an_engine_in_process(embedded: Model) -> None:
    """Two processes with two sentences each; an engine call serves chunks of both."""
    driver = Driver(embedded, chunk_ms=160, endpointing=NO_ENDPOINT)
    for i in range(2):
        driver.open(i)
        driver.push(i, sentences(i, SECONDS)[: int(SECONDS * 16_000)])
        driver.flush(i, 1)
        driver.close(i)
    with EngineProcess() as process:
        process.engine().load()
        answers = talk(process, 2, 2)
        assert [a["texts"] for a in answers] == [[driver.text(0), driver.text(1)]] * 2
        assert all(driver.text(i) for i in range(2))
        assert stats(process)["mean_batch"] > 1, "chunks of more than one stream in a call"
        assert process.process is not None and maps(process.process.pid, "onnxruntime")


def test_a_client_process_loads_no_model() -> None:
    """The weights are in the engine's memory only: a client does not even load onnxruntime."""
    code = (
        "import sys, nemostream.remote, nemostream.client\n"
        "assert not {'onnxruntime', 'torch'} & set(sys.modules), 'a runtime was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

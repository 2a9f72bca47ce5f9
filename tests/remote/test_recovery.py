"""A real engine process that is killed, stopped and replaced in the middle of sentences."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest

from nemostream.model import Model
from nemostream.models.bundle import Bundle
from tests.engine.conftest import offline, utterance
from tests.remote.talk import Talk, blocks
from tests.serving import EngineProcess

STREAMS = 8


@pytest.fixture(scope="module")
def process(toy_bundle: Bundle) -> Iterator[EngineProcess]:
    with EngineProcess("--model", str(toy_bundle.path), "--precision", "fp32", "--threads", "1") as process:
        yield process


@pytest.mark.parametrize("disturbance", ["killed", "terminated", "killed twice at once"])
def test_an_engine_that_goes_in_the_middle_of_sentences_is_only_a_pause(
    process: EngineProcess, toy: Model, disturbance: str
) -> None:
    rng = np.random.default_rng(len(disturbance))
    speech = [utterance(100 + i, 8) for i in range(STREAMS)]
    expected = [offline(toy, s, chunk_ms=160) for s in speech]
    talk = Talk(process.engine(), speech)
    at = set(rng.integers(1, len(blocks(speech)), 4).tolist())
    for block in blocks(speech):
        talk.say(block)
        if block in at:
            process.signal(signal.SIGTERM if disturbance == "terminated" else signal.SIGKILL)
            process.wait()
            process.start()
            if "twice" in disturbance:
                process.kill()
                process.start()
    talk.end()
    assert [talk.text(i) for i in range(STREAMS)] == expected
    assert all(f.whole for finals in talk.finals.values() for f in finals)


def test_an_engine_that_is_stopped_for_a_while_is_only_a_pause(process: EngineProcess, toy: Model) -> None:
    """SIGSTOP: nothing is lost, and nobody takes it for dead."""
    speech = [utterance(200 + i, 6) for i in range(STREAMS)]
    talk = Talk(process.engine(), speech)
    assert process.process is not None
    pid = process.process.pid
    half = len(blocks(speech)) // 2
    for block in blocks(speech):
        if block == half:
            process.signal(signal.SIGSTOP)
        talk.say(block)
    process.signal(signal.SIGCONT)
    talk.end()
    assert [talk.text(i) for i in range(STREAMS)] == [offline(toy, s, chunk_ms=160) for s in speech]
    assert process.process.pid == pid and process.process.poll() is None

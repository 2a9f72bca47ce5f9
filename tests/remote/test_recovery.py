"""A real engine process that is killed, stopped and replaced in the middle of sentences."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Close, Ended, Event, Failed, Final, Open, Push, Samples
from nemostream.registry import AnyEngine
from tests.engine.conftest import offline, utterance
from tests.serving import EngineProcess

STREAMS = 8
BLOCK = 1280


class Talk:
    """Streams that speak at once over one engine, block by block.

    Attributes:
        finals: by stream, in order.
    """

    def __init__(self, engine: AnyEngine, speech: Sequence[Samples], chunk_ms: int = 160) -> None:
        self.speech = speech
        self.finals: dict[int, list[Final]] = {i: [] for i in range(len(speech))}
        self._heard: queue.Queue[Event] = queue.Queue()
        self._connection = engine.connect(self._take)
        self._connection.send(*(Open(i, chunk_ms=chunk_ms) for i in self.finals))

    def say(self, block: int) -> None:
        """The next block of every stream."""
        start = block * BLOCK
        parts = ((i, samples[start : start + BLOCK]) for i, samples in enumerate(self.speech))
        self._connection.send(*(Push(i, part, start) for i, part in parts if len(part)))

    def end(self) -> None:
        """Close all streams and read to their end."""
        self._connection.send(*(Close(i) for i in self.finals))
        left = set(self.finals)
        while left:
            event = self._heard.get(timeout=60)
            assert not isinstance(event, Failed), event
            if isinstance(event, Ended):
                left.remove(event.stream)

    def text(self, stream: int) -> str:
        return " ".join(f.text for f in self.finals[stream] if f.text)

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Final):
                self.finals[event.stream].append(event)
            self._heard.put(event)


@pytest.fixture(scope="module")
def process(toy_bundle: Bundle) -> Iterator[EngineProcess]:
    with EngineProcess("--model", str(toy_bundle.path), "--precision", "fp32", "--threads", "1") as process:
        yield process


def blocks(speech: Sequence[Samples]) -> range:
    return range(max(-(-len(s) // BLOCK) for s in speech))


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

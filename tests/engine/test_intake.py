"""Audio of many streams that is taken together means what it means one by one."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream.core import Core
from nemostream.model import Model
from nemostream.protocol import (
    Close,
    Endpointing,
    Event,
    Failed,
    Final,
    Flush,
    Gap,
    Message,
    Mute,
    Open,
    Push,
    Pushes,
    Samples,
    Started,
)
from tests.engine.conftest import utterance
from tests.examples import examples

STREAMS = 6
HUGE = 1 << 80


class Twin:
    """A core whose clock the test moves; `together`: it gets pushes that stand next to each other as one."""

    def __init__(self, model: Model, together: bool) -> None:
        self.now = 0.0
        self.core = Core(max_streams=STREAMS, peek=True, clock=lambda: self.now)
        self.core.add_model(None, model)
        self.events: list[Event] = []
        self._together = together

    def take(self, messages: list[Message]) -> None:
        """As the engine does: what came in, then steps."""
        for kind, some in itertools.groupby(messages, _kind):
            if kind is not None and self._together:
                self.core.hear("me", Pushes.of([m for m in some if isinstance(m, Push)]))
                continue
            for message in some:
                self.core.handle("me", message)
        self.step()

    def step(self) -> None:
        while self.core.step():
            pass
        for event in self.core.take_events().get("me", []):
            if isinstance(event, Started):
                event = dataclasses.replace(event, wall_time=0.0, generation=0)
            self.events.append(dataclasses.replace(event, generation=0))

    def of(self, stream: int) -> list[Event]:
        return [e for e in self.events if e.stream == stream]


def _kind(message: Message) -> object:
    """What can go together."""
    return (message.samples.dtype, message.samples.ndim) if isinstance(message, Push) else None


def opened(stream: int, draw: Any) -> Open:
    vad = draw(st.sampled_from([None, None, 300]))
    endpointing = Endpointing(draw(st.sampled_from([None, 400])), vad)
    live = draw(st.sampled_from(["live", "live", "batch"]))
    chunk_ms = draw(st.sampled_from([160, 160, 1120]))
    skips = draw(st.sampled_from([False, False, True]))
    return Open(stream, chunk_ms=chunk_ms, endpointing=endpointing, skip_silence=skips, priority=live)


@pytest.mark.usefixtures("loud_is_speech")
@settings(max_examples=examples(25), deadline=None)
@given(data=st.data())
def test_streams_hear_the_same_together_and_alone(toy: Model, data: st.DataObject) -> None:
    """The same messages to two cores: events with their numbers are equal. (Checkpoints are
    compared by tests/remote/test_ledger.py, whose audio is taken together too.)"""
    draw = data.draw
    together, alone = Twin(toy, True), Twin(toy, False)
    audio = [np.concatenate([utterance(seed, 3), np.zeros(30_000, np.float32)]) for seed in range(STREAMS)]
    clocks = [0] * STREAMS
    mails: list[list[Message]] = [[opened(i, draw) for i in range(STREAMS)]]
    for _ in range(draw(st.integers(3, 12))):
        mail: list[Message] = []
        for stream in draw(st.lists(st.integers(0, STREAMS - 1), min_size=1, max_size=12)):
            what = draw(st.sampled_from(["push"] * 12 + ["flush", "gap", "mute", "again", "ahead", "bad", "close"]))
            size = draw(st.sampled_from([160, 320, 2560, 5000, 20_000]))
            samples: Samples | Any = np.resize(np.roll(audio[stream], -clocks[stream]), size)
            if draw(st.booleans()):
                samples = (samples * 32767).astype(np.int16)
            if what in ("push", "again", "ahead"):
                at = clocks[stream] + {"push": 0, "again": -100, "ahead": draw(st.sampled_from([500, 20_000]))}[what]
                mail.append(Push(stream, samples, at))
                clocks[stream] = max(clocks[stream], at + size)
            elif what == "bad":
                bad = draw(st.sampled_from([np.full(9, np.nan, np.float32), np.zeros((2, 9), np.float32), samples]))
                mail.append(Push(stream, bad, HUGE if bad is samples else clocks[stream]))
            elif what == "gap":
                gap = draw(st.sampled_from([1000, 9000]))
                mail.append(Gap(stream, gap))
                clocks[stream] += gap
            else:
                mail.append({"flush": Flush(stream, 7), "mute": Mute(stream), "close": Close(stream)}[what])
        mails.append(mail)
    for mail in mails:
        for twin in (together, alone):
            twin.take(mail)
            twin.now += 0.1
    for twin in (together, alone):
        twin.take([Close(stream) for stream in range(STREAMS)])
    for stream in range(STREAMS):
        assert together.of(stream) == alone.of(stream)


def test_audio_that_cannot_be_taken_is_not_lost_unsaid(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stream of the frame is told; others go on."""
    twin = Twin(toy, True)
    twin.take([Open(stream) for stream in range(4)])
    (group,) = twin.core.groups.values()
    audio = utterance(1)

    def no_memory(*args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(type(group.lanes), "put", no_memory)
        twin.take([Push(s, audio, 0) for s in (1, 2)])
    twin.take([Push(s, audio, 0) for s in (0, 3)])
    failed = [e for e in twin.events if isinstance(e, Failed)]
    assert [(e.stream, e.code, e.retryable) for e in failed] == [(1, "MemoryError", True), (2, "MemoryError", True)]
    twin.take([Close(s) for s in (0, 3)])
    assert [e.text for e in twin.of(0) if isinstance(e, Final)] == [e.text for e in twin.of(3) if isinstance(e, Final)]
    assert any(isinstance(e, Final) and e.text for e in twin.of(0))


def test_one_bad_push_among_many_ends_its_stream_alone(toy: Model) -> None:
    twin = Twin(toy, True)
    twin.take([Open(stream) for stream in range(4)])
    audio = utterance(1)
    bad = audio.copy()
    bad[100] = np.inf
    twin.take([Push(s, bad if s == 2 else audio, 0) for s in range(4)])
    twin.take([Close(s) for s in range(4)])
    assert [e.code for e in twin.events if isinstance(e, Failed)] == ["AudioError"]
    texts = [[e.text for e in twin.of(s) if hasattr(e, "text")] for s in (0, 1, 3)]
    assert texts[0] and texts[0] == texts[1] == texts[2]

"""Audio that is taken while a step runs on the device means what it means before the step, or behind it."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from nemostream.core import Core
from nemostream.device.staging import Staging
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.group import Group
from nemostream.intake import Intake
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Close, Ended, Endpointing, Event, Failed, Final, Flush, Message, Open, Push, Pushes
from tests.engine.conftest import utterance
from tests.examples import examples

STREAMS = 4
SIZES = [1600, 2560, 4000, 7000]


class Listener:
    """A core that is given mail by mail; `early`: while it steps, the audio in front of the next mail too."""

    def __init__(self, model: Model, early: bool) -> None:
        self.now, self.taken_early = 0.0, 0
        self.core = Core(max_streams=STREAMS, peek=True, clock=lambda: self.now)
        self.core.add_model(None, model)
        self.events: list[Event] = []
        self._early = early

    def run(self, mails: list[list[Message]]) -> None:
        rest = deque(deque(mail) for mail in mails)
        while rest:
            mail = rest.popleft()
            following = rest[0] if rest else deque[Message]()

            def meanwhile(following: deque[Message] = following) -> None:
                while following and isinstance(push := following[0], Push):
                    following.popleft()
                    self.taken_early += 1
                    if left := self.core.hear_plain("me", Pushes.of([push])):
                        self.taken_early -= 1
                        following.extendleft(reversed(left))
                        return

            for message in mail:
                self.core.handle("me", message)
            while self.core.step(meanwhile if self._early else None):
                pass
            self.events += self.core.take_events().get("me", [])
            self.now += 0.1

    def finals(self, stream: int) -> list[tuple[Any, ...]]:
        found = [e for e in self.events if isinstance(e, Final) and e.stream == stream]
        return [
            (f.text, f.reason, f.flush_id, [(w.text, w.start_sample, w.end_sample) for w in f.words]) for f in found
        ]


@settings(max_examples=examples(6), deadline=None)
@given(data=st.data())
def test_finals_are_the_same(device: Model, data: st.DataObject) -> None:
    """Everybody speaks all the time, so that no time-out is in it; flushes stand anywhere."""
    draw = data.draw
    audio = [np.concatenate([utterance(seed, 5), np.zeros(30_000, np.float32)]) for seed in range(STREAMS)]
    clocks = [0] * STREAMS
    mails: list[list[Message]] = [
        [
            Open(
                i,
                chunk_ms=draw(st.sampled_from([160, 1120])),
                endpointing=Endpointing(draw(st.sampled_from([None, 400]))),
            )
            for i in range(STREAMS)
        ]
    ]
    for tick in range(draw(st.integers(8, 14))):
        mail: list[Message] = []
        for stream in draw(st.permutations(range(STREAMS))):
            size = draw(st.sampled_from(SIZES))
            mail.append(Push(stream, np.resize(np.roll(audio[stream], -clocks[stream]), size), clocks[stream]))
            clocks[stream] += size
            if draw(st.integers(0, 15)) == 0:
                mail.append(Flush(stream, tick))
        mails.append(mail)
    mails.append([Close(stream) for stream in range(STREAMS)])
    plain, early = Listener(device, False), Listener(device, True)
    for listener in (plain, early):
        listener.run(mails)
    event(f"taken early: {early.taken_early > 0}")
    for stream in range(STREAMS):
        assert early.finals(stream) == plain.finals(stream)


def test_all_that_comes_while_everybody_speaks_is_taken(device: Model) -> None:
    """But what has no room in its window yet."""
    audio = utterance(2, 12)
    mails: list[list[Message]] = [[Open(i, chunk_ms=160) for i in range(STREAMS)]]
    mails += [[Push(i, audio[at : at + 1600], at) for i in range(STREAMS)] for at in range(0, 48_000, 1600)]
    listener = Listener(device, True)
    listener.run(mails)
    assert listener.taken_early > STREAMS * 30 // 3


def collect(engine: Engine) -> tuple[queue.Queue[Event], Callable[[int], list[Event]]]:
    events: queue.Queue[Event] = queue.Queue()
    seen: list[Event] = []

    def until_ended(streams: int) -> list[Event]:
        while sum(isinstance(e, (Ended, Failed)) for e in seen) < streams:
            seen.append(events.get(timeout=60))
        return seen

    return events, until_ended


def during_the_first_step(monkeypatch: pytest.MonkeyPatch, come: Callable[[], None], then: Callable[[], None]) -> None:
    """`come` when the device has begun, `then` when the step has been waited for."""
    plain, steps = Staging.download, iter(range(1 << 30))

    def download(staging: Staging, result: Any, meanwhile: Any = None) -> Any:
        if meanwhile is None or next(steps) > 0:
            return plain(staging, result, meanwhile)
        come()
        found = plain(staging, result, meanwhile)
        then()
        return found

    monkeypatch.setattr(Staging, "download", download)


def test_the_engine_hears_until_something_else_stands_in_the_way(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = utterance(3)
    chunk, heard = audio[:5000], list[list[int]]()
    engine = Engine(
        EngineConfig(model=str(toy_bundle.path), precision="fp32", threads=1, encoder="torch", max_streams=4)
    )
    engine.load()
    events, until_ended = collect(engine)
    connection = engine.connect(lambda found: [events.put(e) for e in found] and None)

    def lanes() -> list[int]:
        (group,) = engine._core.groups.values()
        return group.lanes.heard[:3].tolist()

    def come() -> None:
        heard.append(lanes())
        connection.send(
            Pushes.of([Push(0, audio[5000:6000], 5000), Push(1, audio[5000:6000], 5000)]),
            Flush(1, 9),
            Pushes.of([Push(2, audio[5000:6000], 5000)]),
        )

    during_the_first_step(monkeypatch, come, lambda: heard.append(lanes()))
    connection.send(*(Open(i, chunk_ms=160) for i in range(3)), Pushes.of([Push(i, chunk, 0) for i in range(3)]))
    for _ in range(3):
        events.get(timeout=60)  # that they have started is told behind the first step
    connection.send(*(Push(i, audio[6000:], 6000) for i in range(3)), *(Close(i) for i in range(3)))
    finals = [e for e in until_ended(3) if isinstance(e, Final)]
    engine.close()
    assert heard == [[5000, 5000, 5000], [6000, 6000, 5000]]
    texts = [" ".join(f.text for f in finals if f.stream == i and f.text) for i in range(3)]
    assert texts[0] == texts[2] and texts[0] and any(f.flush_id == 9 for f in finals)


def test_audio_that_cannot_be_taken_meanwhile_fails_its_streams_behind_the_step(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows do not move under a step that runs."""
    audio, rows = utterance(3), list[int]()
    engine = Engine(
        EngineConfig(model=str(toy_bundle.path), precision="fp32", threads=1, encoder="torch", max_streams=4)
    )
    engine.load()
    events, until_ended = collect(engine)
    connection = engine.connect(lambda found: [events.put(e) for e in found] and None)
    taken, group_rows = Intake.take, lambda: len(next(iter(engine._core.groups.values())).rows)

    def no_memory(*args: object) -> None:
        raise MemoryError

    def come() -> None:
        monkeypatch.setattr(Intake, "take", no_memory)
        connection.send(Pushes.of([Push(0, audio[5000:6000], 5000)]))

    def then() -> None:
        monkeypatch.setattr(Intake, "take", taken)
        rows.append(group_rows())
        connection.send(Push(1, audio[5000:], 5000), Close(1))

    during_the_first_step(monkeypatch, come, then)
    connection.send(*(Open(i, chunk_ms=160) for i in range(2)), Pushes.of([Push(i, audio[:5000], 0) for i in range(2)]))
    found = until_ended(2)
    engine.close()
    assert rows == [2]
    assert [(e.stream, e.code) for e in found if isinstance(e, Failed)] == [(0, "MemoryError")]
    assert any(isinstance(e, Final) and e.text and e.stream == 1 for e in found)


def test_a_host_has_no_meanwhile(toy: Model) -> None:
    """onnxruntime computes on the thread that calls it."""
    called: list[bool] = []
    listener = Listener(toy, False)
    listener.core.handle("me", Open(0, chunk_ms=160))
    listener.core.handle("me", Push(0, utterance(1), 0))
    while listener.core.step(lambda: called.append(True)):
        pass
    assert not called and isinstance(next(iter(listener.core.groups.values())), Group)

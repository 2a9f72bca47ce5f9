"""Clients that send what makes no sense: each loses its own connection or stream, and nothing else happens."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

import msgspec
import numpy as np
import pytest

from nemostream import packing, wire
from nemostream.model import Model
from nemostream.protocol import Checkpoint, Failed, Gap, Open, Push, Refused
from tests.engine.conftest import offline, utterance
from tests.remote.raw import Raw, eventually
from tests.remote.talk import Talk, blocks
from tests.serving import ServedEngine

CONNECTIONS = 200
encode = msgspec.msgpack.encode


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(wire.LENGTH, "little") + body


def other(kind: str, body: object) -> bytes:
    return wire.pack(wire.Messages([wire.Other(kind, msgspec.Raw(encode(body)))]))


def block(streams: object, ats: object, lengths: object, pcm16: object, data: object) -> bytes:
    part = "PushBlock", streams, ats, lengths, pcm16, data
    return framed(encode({"type": "Messages", "parts": [part]}))


GARBAGE = {
    "random bytes": framed(np.random.default_rng(1).bytes(999)),
    "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a frame of 4 GB": b"\xff\xff\xff\xff",
    "an empty frame": framed(b""),
    "a deep nest": framed(b"\x81\xa1a" * 100_000),
    "a deep nest within a message": framed(
        b"\x82\xa4type\xa8Messages\xa5parts\x91\x93\xa5Other\xa4Open" + b"\x91" * 99_999
    ),
    "a list of 2^31": framed(b"\x82\xa4type\xa8Messages\xa5parts\xdd\x7f\xff\xff\xff"),
    "too many messages": framed(encode({"type": "Messages", "parts": [("Other", "Mute", {"stream": 1})] * 9000})),
    "too many pushes": wire.pack(
        wire.Messages([wire.PushBlock([1] * 5000, [0] * 5000, [0] * 5000, True, memoryview(b""))] * 2)
    ),
    "no such frame": framed(encode({"type": "Nonsense\nsecond line" * 100})),
    "no such message": other("Nonsense\nsecond line" * 100, {}),
    "the other direction": wire.pack(packing.events([Checkpoint(1, 1, 1, 2**62, b"")])),
    "an event among messages": other("Checkpoint", Checkpoint(1, 1, 1, 2**62, b"")),
    "a welcome": wire.pack(wire.Welcome(wire.VERSION, "", 1, False)),
    "hello again": wire.pack(wire.Hello(wire.VERSION, "", 1)),
    "half a sample": block([1], [0], [1], False, b"\0\0\0"),
    "a stream below 0": block([-1], [0], [1], True, b"\0\0"),
    "a length below 0": block([1, 2], [0, 0], [3, -1], True, b"\0" * 4),
    "wrong types": other("Open", {"stream": "one"}),
    "a number beyond 64 bits": other("Open", {"stream": 1, "chunk_ms": 1e300}),
    "endpointing of no time": other("Open", {"stream": 1, "endpointing": {"blank_ms": -1}}),
    "a call that is none": framed(encode({"type": "Call", "number": "x", "name": 1})),
}


def counts(served: ServedEngine) -> tuple[int, int, int, int, int]:
    """What could leak: file handles, threads, tasks of the server's loop, owners, rows."""

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    tasks_now = asyncio.run_coroutine_threadsafe(tasks(), served._server_loop).result(10)
    owners = len(served.behind._deliver)
    return len(os.listdir("/proc/self/fd")), threading.active_count(), tasks_now, owners, served.open_streams


def test_two_hundred_clients_send_garbage_and_nothing_is_left_of_them(
    served: ServedEngine, toy: Model, caplog: pytest.LogCaptureFixture
) -> None:
    assert served.config.place is not None
    speech = [utterance(i, 5) for i in range(2)]
    talk = Talk(served, speech)
    said = iter(blocks(speech))
    talk.say(next(said))
    eventually(lambda: served.open_streams == 2)
    before = counts(served)
    with caplog.at_level(logging.DEBUG):
        for i in range(CONNECTIONS):
            kind = list(GARBAGE)[i % len(GARBAGE)]
            with Raw(served.config.place) as raw:
                raw.tell(Open(1))
                raw.send(GARBAGE[kind])
                goodbye = raw.farewell()
                assert goodbye is not None and goodbye.code == "WireError", kind
                assert "\n" not in goodbye.message and len(goodbye.message) < 300, kind
            if i % 4 == 0:
                talk.say(next(said, len(blocks(speech))))
        eventually(lambda: counts(served) == before)
    theirs = [r for r in caplog.records if r.name == "nemostream"]
    assert len(theirs) == CONNECTIONS
    assert all(r.exc_info is None and "\n" not in r.getMessage() and len(r.getMessage()) < 300 for r in theirs)
    assert not [r for r in caplog.records if r.name == "asyncio" and r.levelno >= logging.WARNING]
    for b in said:
        talk.say(b)
    talk.end()
    assert [talk.text(i) for i in range(2)] == [offline(toy, s, chunk_ms=160) for s in speech]


NAN = np.full(800, np.nan, np.float32)
FAULTY = {
    "NaN": (Push(1, NAN, 0), "AudioError"),
    "infinite": (Push(1, NAN * 0 + np.inf, 0), "AudioError"),
    "a gap below 0": (Gap(1, -5), "AudioError"),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_a_message_that_cannot_be_done_ends_its_stream_alone(served: ServedEngine, kind: str) -> None:
    assert served.config.place is not None
    message, code = FAULTY[kind]
    with Raw(served.config.place) as raw:
        raw.tell(Open(1), Open(2), message)
        failed = of(raw, Failed)
        assert isinstance(failed, Failed) and (failed.stream, failed.code) == (1, code)
        eventually(lambda: served.open_streams == 1)
    eventually(lambda: served.open_streams == 0)


@pytest.mark.parametrize("resume", [b"", b"\1", b"\1\0", b"\1\0" + b"\x91" * 99_999, b"\1\0\x87" + bytes(99)])
def test_a_snapshot_that_is_none_is_refused(
    served: ServedEngine, resume: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert served.config.place is not None
    with Raw(served.config.place) as raw:
        raw.tell(Open(1, resume=resume))
        refused = of(raw, Refused)
        assert isinstance(refused, Refused) and refused.code == "SnapshotError"
    assert not [r for r in caplog.records if r.exc_info]


def test_audio_and_gaps_far_in_the_future_cost_nothing(served: ServedEngine) -> None:
    assert served.config.place is not None
    with Raw(served.config.place) as raw:
        raw.tell(Open(1), Push(1, utterance(1), 2**62), Open(2), Gap(2, 2**62), Push(2, utterance(1), 0))
        raw.send(wire.Call(1, "stats"))
        raw.until(wire.Reply, 1)
    eventually(lambda: served.open_streams == 0)


def of(raw: Raw, kind: type) -> object:
    """The first event of that kind."""
    while True:
        frame = raw.until(wire.Events)
        assert isinstance(frame, wire.Events)
        for event in packing.read_events(frame):
            if isinstance(event, kind):
                return event

"""Bytes between processes: what goes in comes out, and garbage is a typed error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream import packing, wire
from nemostream.errors import WireError
from nemostream.inbox import as_float
from nemostream.protocol import (
    Checkpoint,
    Close,
    Ended,
    Endpointing,
    Failed,
    Final,
    Flush,
    Gap,
    Interim,
    Message,
    Mute,
    Open,
    Preflight,
    Push,
    Pushes,
    Refused,
    Started,
    Unmute,
    Update,
    Usage,
    Word,
)
from tests.examples import examples

numbers = st.integers(0, 2**31)
words = st.lists(st.builds(Word, st.text(max_size=9), numbers, numbers, st.floats(0, 1)), max_size=3).map(tuple)
pcm16 = st.lists(st.integers(-32768, 32767), max_size=20).map(lambda x: np.array(x, np.float32) / np.float32(32768))
floats = st.lists(st.floats(-2, 2, width=32), max_size=20).map(lambda x: np.array(x, np.float32))
ints = st.lists(st.integers(-32768, 32767), max_size=20).map(lambda x: np.array(x, np.int16))
pushes = st.builds(Push, numbers, pcm16 | floats | ints, numbers)
terms = st.lists(st.text(max_size=9), max_size=3).map(tuple)
endpointings = st.builds(Endpointing, st.none() | st.integers(1, 999))
others = st.one_of(
    st.builds(Open, numbers, endpointing=st.none() | endpointings, keyterms=terms, resume=st.binary()),
    st.builds(Gap, numbers, numbers),
    st.builds(Flush, numbers, numbers),
    st.builds(Mute, numbers),
    st.builds(Unmute, numbers),
    st.builds(Update, numbers, st.none() | st.just(Endpointing()), st.none() | st.text(), st.none() | terms),
    st.builds(Close, numbers, st.booleans()),
)
events = st.one_of(
    st.builds(Started, numbers, numbers, numbers, st.text(), st.text(), numbers, st.floats(0, 1e10)),
    st.builds(Interim, numbers, numbers, numbers, st.text(), words, numbers),
    st.builds(Preflight, numbers, numbers, numbers, st.text(), words, numbers),
    st.builds(Final, numbers, numbers, numbers, st.text(), words, numbers, numbers, st.just("flush"), numbers, numbers),
    st.builds(Usage, numbers, numbers, numbers, numbers, numbers),
    st.builds(Checkpoint, numbers, numbers, numbers, numbers, st.binary()),
    st.builds(Ended, numbers, numbers, numbers),
    st.builds(Failed, numbers, numbers, numbers, st.text(), st.text(), st.booleans()),
    st.builds(Refused, numbers, numbers, numbers, st.text(), st.text(), st.none() | st.floats(0, 9)),
)


def plain(message: Message) -> object:
    """Comparable: an array is not. A silent sample is one, whether its zero has a sign or not."""
    if isinstance(message, Push):
        return message.stream, (as_float(message.samples) + np.float32(0)).tobytes(), message.at_sample
    return message


@settings(max_examples=examples(25, 60), deadline=None)
@given(st.lists(pushes | others, max_size=12))
def test_messages_arrive_as_they_were_sent(sent: list[Message]) -> None:
    """In order, and every sample exactly, whether it comes or goes as int16 or as float32."""
    frame = wire.to_engine(wire.pack(packing.messages(sent))[wire.LENGTH :])
    assert isinstance(frame, wire.Messages)
    read = [m.each() if isinstance(m, Pushes) else [m] for m in packing.read_messages(frame)]
    assert [plain(m) for some in read for m in some] == [plain(m) for m in sent]


@settings(max_examples=examples(25, 60), deadline=None)
@given(st.lists(events, max_size=12))
def test_events_arrive_as_they_were_sent(sent: list[Final]) -> None:
    frame = wire.from_engine(wire.pack(packing.events(sent))[wire.LENGTH :])
    assert isinstance(frame, wire.Events)
    assert packing.read_events(frame) == sent


@settings(max_examples=examples(150, 300), deadline=None)
@given(st.binary(max_size=200), st.integers(0, 120), st.integers(0, 255))
def test_garbage_is_a_typed_error(garbage: bytes, at: int, byte: int) -> None:
    """Random bytes, and a good frame with one byte changed."""
    good = bytearray(
        wire.pack(packing.messages([Open(1), Push(1, np.ones(9, np.float32), 0), Flush(1, 2)]))[wire.LENGTH :]
    )
    good[at % len(good)] = byte
    for data in (garbage, bytes(good)):
        try:
            frame = wire.to_engine(data)
            if isinstance(frame, wire.Messages):
                packing.read_messages(frame)
        except WireError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (wire.PushBlock([1], [0], [2], True, memoryview(bytes(3))), "within a sample"),
        (wire.PushBlock([1], [0], [3], True, memoryview(bytes(4))), "not as long"),
        (wire.PushBlock([1, 2], [0, 0], [3, -1], True, memoryview(bytes(4))), "not as long"),
        (wire.PushBlock([1, 2], [0], [2], True, memoryview(bytes(4))), "whose it is"),
    ],
)
def test_a_block_of_audio_that_contradicts_itself_is_refused(block: wire.PushBlock, says: str) -> None:
    with pytest.raises(WireError, match=says):
        packing.read_messages(wire.Messages([block]))


def test_events_do_not_go_to_the_engine() -> None:
    frame = packing.events([Ended(1, 1, 1)])
    with pytest.raises(WireError, match="direction"):
        packing.read_messages(wire.Messages(frame.parts))


def test_audio_that_was_int16_takes_two_bytes_a_sample() -> None:
    samples = np.arange(-500, 500, dtype=np.float32) / np.float32(32768)
    assert len(wire.pack(packing.messages([Push(1, samples, 0)]))) < 2_100
    assert len(wire.pack(packing.messages([Push(1, samples + np.float32(1e-6), 0)]))) > 4_000

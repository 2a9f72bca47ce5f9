"""A room's readers: everybody reads every final once and in order, whenever they come, however slowly they read."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream_agent.gateway import rooms as module
from nemostream_agent.gateway.captions import Message, Speaker
from nemostream_agent.gateway.errors import Refusal
from nemostream_agent.gateway.rooms import BEHIND, HISTORY, Line, Reader, Room, Rooms

ANNA, BEN = Speaker("a", "Anna"), Speaker("b", "Ben")


def interim(speaker: Speaker, text: str) -> Message:
    return Message(text, speaker.id, interim=True)


def final(speaker: Speaker, text: str) -> Message:
    return Message(text, speaker.id, final=True)


def read(reader: Reader) -> list[Line]:
    """All that waits for it."""
    return list(iter(reader.take, None))


def room_of_its_own() -> Room:
    return Room("r", itertools.count())


SAID = st.lists(st.tuples(st.sampled_from([ANNA, BEN]), st.booleans(), st.booleans()), max_size=40)


@given(SAID)
@settings(max_examples=60, deadline=None)
def test_a_slow_reader_gets_every_final_in_order_and_no_interim_behind_its_final(
    said: list[tuple[Speaker, bool, bool]],
) -> None:
    """`said`: who, whether it is a final, whether the reader reads then."""
    room = room_of_its_own()
    reader = room.reader(None, None)
    got: list[str] = []
    for i, (speaker, is_final, reads) in enumerate(said):
        room.say(final(speaker, f"{speaker.id} F{i}") if is_final else interim(speaker, f"{speaker.id} I{i}"))
        if reads:
            got += [text for _, text in read(reader)]
    got += [text for _, text in read(reader)]
    spoken = [(s, f, i) for i, (s, f, _) in enumerate(said)]
    assert [t for t in got if " F" in t] == [f"{s.id} F{i}" for s, f, i in spoken if f]
    for speaker in (ANNA, BEN):
        numbers = [int(text[3:]) for text in got if text.startswith(f"{speaker.id} ")]
        assert numbers == sorted(set(numbers)), "in order, and nothing twice"
        own = [(f, i) for s, f, i in spoken if s is speaker]
        # The newest interim behind the last final is read in any case.
        if own and not own[-1][0]:
            assert numbers[-1] == own[-1][1]


def test_of_waiting_interims_the_newest_is_read() -> None:
    room = room_of_its_own()
    reader = room.reader(None, None)
    for i in range(1000):
        room.say(interim(ANNA, f"{i}"))
    assert [text for _, text in read(reader)][1:] == ["999"]


def test_who_comes_later_reads_the_last_finals_and_who_comes_back_what_it_missed() -> None:
    room = room_of_its_own()
    for i in range(HISTORY + 5):
        room.say(final(ANNA, f"{i}"))
    lines = read(room.reader(None, None))[1:]
    assert [text for _, text in lines] == [f"{i}" for i in range(5, HISTORY + 5)]
    number = lines[-3][0]
    assert [text for _, text in read(room.reader(None, number))[1:]] == [text for _, text in lines[-2:]]


def test_a_reader_that_does_not_read_is_let_go_and_holds_no_more() -> None:
    room = room_of_its_own()
    sleeper, awake = room.reader(None, None), room.reader(None, None)
    awake_lines = 0
    for i in range(BEHIND + 10):
        room.say(final(ANNA, f"{i}"))
        if i % 500 == 0:
            awake_lines += len(read(awake))
    assert sleeper.over and not awake.over
    assert awake_lines + len(read(awake)) == BEHIND + 11
    assert len(read(sleeper)) == BEHIND + 1


def test_a_room_goes_on_behind_an_absence_and_is_forgotten_in_time() -> None:
    now = 0.0
    rooms = Rooms(10, lambda: now)
    with rooms.speaking("r", ANNA) as room:
        room.say(final(ANNA, "one"))
    now = module.KEEP_SECONDS - 1
    with rooms.reading("r") as reader:
        assert [text for number, text in read(reader) if number] == ["one"]
    now += module.KEEP_SECONDS + 1
    with rooms.reading("other"), rooms.reading("r") as reader:
        assert [text for number, text in read(reader) if number] == []
    assert len(rooms) == 0, "where nothing was said, nothing is kept"


def test_empty_rooms_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROOMS", 5)
    rooms = Rooms(10)
    for i in range(20):
        with rooms.speaking(f"r{i}", ANNA) as room:
            room.say(final(ANNA, f"{i}"))
    assert len(rooms) <= 6
    with rooms.reading("r19") as reader:
        assert [text for number, text in read(reader) if number] == ["19"], "the one that was left last is kept"


def test_readers_are_told_who_is_there_comes_and_goes() -> None:
    rooms = Rooms(10)
    with rooms.speaking("r", ANNA), rooms.reading("r", you="a") as reader:
        with rooms.speaking("r", BEN):
            pass
        told = [json.loads(text) for _, text in read(reader)]
    assert told[0] == {"type": "room", "room": "r", "you": "a", "speakers": [{"id": "a", "name": "Anna"}]}
    assert [(t["type"], t["name"]) for t in told[1:]] == [("joined", "Ben"), ("left", "Ben")]


def test_beyond_the_last_place_a_reader_is_refused_and_places_come_back() -> None:
    rooms = Rooms(2)
    for _ in range(3):
        with rooms.reading("a"), rooms.reading("b"):
            with pytest.raises(Refusal, match="2 places") as refused, rooms.reading("a"):
                pass
            assert refused.value.status == 503 and refused.value.retry_after
    assert rooms.readers == 0 and len(rooms) == 0


def test_numbers_go_up_when_a_room_was_forgotten() -> None:
    """So Last-Event-ID of an earlier room hides nothing of a later one."""
    rooms = Rooms(10)
    numbers = []
    for _ in range(2):
        with rooms.speaking("r", ANNA) as room:
            room.say(final(ANNA, "x"))
            numbers.append(room.said[-1][0])
        rooms._rooms.clear()
    assert numbers[0] < numbers[1]


async def test_a_reader_that_waits_is_woken_by_a_message_and_by_the_end() -> None:
    rooms = Rooms(10)
    with rooms.reading("r") as reader:
        await anext(reader)
        waiting = asyncio.ensure_future(anext(reader))
        with rooms.speaking("r", ANNA):
            assert json.loads((await waiting)[1])["type"] == "joined"
            rooms.end()
            assert [text async for _, text in reader] == []

"""A look at the engine from outside: its own answer, or None, and never a wait or an engine that was not there."""

from __future__ import annotations

import asyncio

import pytest

from nemostream.guest import Guest
from nemostream.probe import describe, probe
from tests.serving import ServedEngine, new_place


async def test_a_look_waits_for_its_own_answer(served: ServedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine says unasked that it lives; here it does so just before it answers."""
    arrive = Guest.arrive

    def arrive_and_say_so(guest: Guest) -> None:
        arrive(guest)
        guest.look(0.0)

    monkeypatch.setattr(Guest, "arrive", arrive_and_say_so)
    place = served.config.place
    figures, description = await asyncio.to_thread(probe, place, 20.0), await describe(place, 20.0)
    assert figures is not None and figures["max_streams"] == 12
    assert description is not None and description.stats["max_streams"] == 12


async def test_many_may_look_at_once(served: ServedEngine) -> None:
    found = await asyncio.gather(*(describe(served.config.place, 20.0) for _ in range(50)))
    assert all(one is not None for one in found)


async def test_nobody_there_is_none_and_stays_so() -> None:
    with new_place() as place:
        assert probe(place) is None and await describe(place) is None
        assert not place.socket.exists()

"""The room page: in a LiveKit room, with captions from an agent that is a process of its own."""

from __future__ import annotations

import psutil
import pytest

from tests.browser.conversation import Conversation, of, text_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_one_says_is_read_under_the_name_by_the_other_and_in_an_overlay(livekit: Conversation) -> None:
    for tab in livekit.all_read:
        for name, sentence in livekit.said.items():
            assert sentence.is_heard_in(text_of(tab.painted.view, name)), tab.painted.view


async def test_an_interim_is_painted_before_the_final(livekit: Conversation) -> None:
    for tab in livekit.all_read:
        for name in livekit.said:
            first = of(tab.painted.view, name)[0]
            assert first.first_ms is not None and first.painted_ms is not None
            assert first.first_ms < first.painted_ms


async def test_an_overlay_shows_whom_it_is_asked_for(livekit: Conversation) -> None:
    assert {caption.name for view in livekit.of_ben.painted.views for caption in view.captions} == {"Ben"}


async def test_media_does_not_leave_this_machine(livekit: Conversation) -> None:
    mine = {address.address.partition("%")[0] for card in psutil.net_if_addrs().values() for address in card}
    for tab in livekit.all_read:
        ways = await tab.ways()
        assert ways
        for way in ways:
            assert set(way) <= mine


async def test_who_stops_is_gone_for_the_others(livekit: Conversation) -> None:
    anna, ben = livekit.speaking["Anna"], livekit.speaking["Ben"]
    await ben.click("stop")
    await ben.state("stopped")
    await anna.page.get_by_text("Ben left").wait_for()
    assert anna.painted.view.state == "live"

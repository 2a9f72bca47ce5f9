"""The solo page: who speaks over WHIP is read in another browser."""

from __future__ import annotations

import ipaddress
import re

import psutil
import pytest
import srt
import webvtt
from playwright.async_api import Browser

from tests.browser.conversation import Conversation, of, text_of
from tests.browser.tab import Tabs
from tests.gateway.process import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOON_MS = 2000
"""Slack of a busy machine; bench.browser has the figures."""


async def test_what_one_says_is_read_in_another_browser(solo: Conversation) -> None:
    for tab in solo.all_read:
        for name, sentence in solo.said.items():
            assert sentence.is_heard_in(text_of(tab.painted.view, name)), tab.painted.view


async def test_an_interim_is_painted_before_the_final(solo: Conversation) -> None:
    for tab in solo.all_read:
        for name in solo.said:
            first = of(tab.painted.view, name)[0]
            assert first.first_ms is not None and first.painted_ms is not None
            assert first.first_ms < first.painted_ms


async def test_a_final_is_painted_soon_after_the_gateway_has_sent_it(solo: Conversation) -> None:
    for tab in solo.all_read:
        for caption in tab.painted.view.finals:
            assert caption.painted_ms is not None and caption.sent_ms is not None
            assert -10 < caption.painted_ms - caption.sent_ms < SOON_MS


async def test_a_final_is_painted_soon_after_the_last_word(solo: Conversation) -> None:
    for name, tab in solo.speaking.items():
        view = tab.painted.view
        assert view.microphone_ms is not None
        last = max(caption.painted_ms or 0.0 for caption in of(view, name))
        assert 0 < last - solo.said[name].ends_ms(view.microphone_ms) < 2 * SOON_MS


async def test_what_is_final_does_not_change(solo: Conversation) -> None:
    for tab in solo.all_read:
        texts: dict[str, set[str]] = {}
        for view in tab.painted.views:
            for caption in view.finals:
                texts.setdefault(caption.segment, set()).add(caption.text)
        assert texts and all(len(forms) == 1 for forms in texts.values())


async def test_screen_readers_say_finals_alone(solo: Conversation) -> None:
    seen = [caption for view in solo.speaking["Ben"].painted.views for caption in view.captions]
    assert any(not caption.final for caption in seen)
    assert all(caption.aloud is caption.final for caption in seen)


async def test_the_latency_is_shown(solo: Conversation) -> None:
    shown = solo.speaking["Anna"].element("latency")
    assert re.search(r"\d+ ms", await shown.inner_text())
    assert 0 < float(await shown.get_attribute("data-ms") or 0) < 2 * SOON_MS


async def test_media_goes_over_the_loopback_alone(solo: Conversation) -> None:
    mine = {address.address.partition("%")[0] for card in psutil.net_if_addrs().values() for address in card}
    for tab in solo.speaking.values():
        ways = await tab.ways()
        assert ways
        for local, remote in ways:
            assert ipaddress.ip_address(remote).is_loopback and local in mine


async def test_captions_are_downloaded_as_webvtt(solo: Conversation) -> None:
    captions = webvtt.from_string(await solo.speaking["Anna"].download("download-vtt")).captions
    assert captions
    for name, sentence in solo.said.items():
        spoken = [caption for caption in captions if caption.voice == name]
        assert sentence.is_heard_in(" ".join(caption.text.replace("\n", " ") for caption in spoken))
    for caption in captions:
        assert 0 <= caption.start_in_seconds < caption.end_in_seconds < 30


async def test_captions_are_downloaded_as_srt(solo: Conversation) -> None:
    cues = list(srt.parse(await solo.speaking["Anna"].download("download-srt")))
    assert [cue.index for cue in cues] == list(range(1, len(cues) + 1))
    for name, sentence in solo.said.items():
        spoken = [cue.content.replace("\n", " ") for cue in cues if cue.content.startswith(f"{name}: ")]
        assert sentence.is_heard_in(" ".join(text.removeprefix(f"{name}: ") for text in spoken))
    assert all(cue.start < cue.end for cue in cues)


async def test_captions_are_downloaded_as_text(solo: Conversation) -> None:
    lines = (await solo.speaking["Anna"].download("download-txt")).split("\n")
    for name, sentence in solo.said.items():
        spoken = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]
        assert sentence.is_heard_in(" ".join(spoken))


async def test_a_room_of_its_own_stays_the_same_over_a_reload(
    tabs: Tabs, gateway: GatewayProcess, deaf: Browser
) -> None:
    tab = await tabs.open(deaf, f"{gateway.http}/solo/")
    room = await tab.element("room").input_value()
    assert re.fullmatch(r"[A-Za-z0-9._-]{6,64}", room)
    await tab.page.reload()
    assert await tab.element("room").input_value() == room
    other = await tabs.open(deaf, f"{gateway.http}/solo/")
    assert await other.element("room").input_value() != room

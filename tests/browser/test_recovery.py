"""A connection that breaks is made anew, and a pause is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from nemostream_agent.chromium import Start
from tests.browser.conftest import LOCAL
from tests.browser.speech import Sentence
from tests.browser.tab import Tabs
from tests.gateway.process import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def over_and_over(tmp_path_factory: pytest.TempPathFactory) -> Sentence:
    return Sentence.make("refund", tmp_path_factory.mktemp("speech"), lead=0.5, tail=1.0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def talker(start: Start, over_and_over: Sentence) -> AsyncIterator[Browser]:
    """Its microphone says "refund" again and again."""
    browser = await start(over_and_over.sound, loop=True)
    yield browser
    await browser.close()


async def test_in_a_pause_no_words_are_sent(
    tabs: Tabs, gateway: GatewayProcess, talker: Browser, room: str, over_and_over: Sentence
) -> None:
    tab = await tabs.open(talker, f"{gateway.http}/solo/", room=room, name="Ben", autostart=1)
    await tab.finals()
    await tab.click("pause")
    await tab.state("paused")
    paused = await tab.finals()
    # The sentence is said once more, wherever in it the pause began.
    await asyncio.sleep(1.3 * over_and_over.seconds)
    assert [one.segment for one in tab.painted.view.captions] == [one.segment for one in paused.captions]
    await tab.click("pause")
    await tab.state("live")
    await tab.finals(len(paused.finals) + 1)


async def test_after_a_reload_the_captions_are_there_once_and_speaking_goes_on(
    tabs: Tabs, gateway: GatewayProcess, talker: Browser, room: str, over_and_over: Sentence
) -> None:
    tab = await tabs.open(talker, f"{gateway.http}/solo/", room=room, name="Ben", autostart=1)
    before = await tab.finals()
    await tab.page.reload()
    known = {one.segment for one in before.captions}
    after = await tab.painted.until(
        lambda view: any(one.segment not in known and over_and_over.is_heard_in(one.text) for one in view.finals)
    )
    assert [(one.segment, one.text) for one in after.finals if one.segment in known] == [
        (one.segment, one.text) for one in before.finals
    ]
    assert len({one.segment for one in after.captions}) == len(after.captions)


async def test_when_the_gateway_is_gone_and_there_again_captions_go_on(
    tabs: Tabs, gateway: GatewayProcess, talker: Browser, deaf: Browser, room: str
) -> None:
    engine = {"NEMOSTREAM_SOCKET": str(gateway.place.socket)}
    with GatewayProcess(*LOCAL, environment=engine) as first:
        overlay = await tabs.open(deaf, f"{first.http}/overlay/", room=room)
        tab = await tabs.open(talker, f"{first.http}/solo/", room=room, name="Ben", autostart=1)
        before = await tab.finals()
        await overlay.finals()
        first.process.kill()
        first.wait()
    port = str(urlsplit(first.http).port)
    with GatewayProcess(*LOCAL, "--port", port, environment=engine):
        seen = {one.segment for one in tab.painted.view.captions + overlay.painted.view.captions}
        for reader in tab, overlay:
            await reader.painted.until(lambda view: any(one.final and one.segment not in seen for one in view.captions))
            states = [view.state for view in reader.painted.views]
            assert "reconnecting" in states and states[-1] == "live"
        assert any(view.state == "reconnecting" and view.error for view in tab.painted.views)
        assert not tab.painted.view.error
        after = tab.painted.view
        assert [one.segment for one in after.captions[: len(before.finals)]] == [one.segment for one in before.finals]
        await tab.click("stop")
        await tab.state("stopped")

"""What is in a person's way is said in a sentence; and where it passes, the page goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.async_api import Browser

from nemostream_agent.chromium import NO_MICROPHONE, Start
from tests.browser.conftest import LOCAL
from tests.browser.tab import Tabs
from tests.gateway.process import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "open-sesame-1234"


@pytest.fixture(scope="module")
def small(gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    """With a key, and a place for one."""
    environment = {"NEMOSTREAM_SOCKET": str(gateway.place.socket), "NEMOSTREAM_API_KEYS": KEY}
    with GatewayProcess(*LOCAL, "--max-streams", "1", environment=environment) as running:
        yield running


async def test_a_page_asks_for_the_key_and_is_let_in_with_it(
    tabs: Tabs, small: GatewayProcess, anna: Browser, room: str
) -> None:
    tab = await tabs.open(anna, f"{small.http}/solo/", room=room, autostart=1)
    await tab.says("wants a key")
    field = tab.element("key")
    await field.fill("not-this-one")
    await field.press("Enter")
    await tab.says("not known")
    await field.fill(KEY)
    await field.press("Enter")
    view = await tab.state("live")
    assert not view.error and await field.is_hidden()
    await tab.click("stop")
    await tab.state("stopped")


async def test_who_finds_no_place_is_told_so_and_comes_in_when_there_is_one(
    tabs: Tabs, small: GatewayProcess, anna: Browser, ben: Browser, room: str
) -> None:
    first = await tabs.open(anna, f"{small.http}/solo/#access_token={KEY}")
    await first.click("start")
    await first.state("live")
    second = await tabs.open(ben, f"{small.http}/solo/#access_token={KEY}")
    await second.click("start")
    refused = await second.state("reconnecting")
    assert "All places are taken" in refused.error
    await first.click("stop")
    await first.state("stopped")
    view = await second.state("live")
    assert not view.error
    await second.click("stop")
    await second.state("stopped")


async def test_without_a_microphone(tabs: Tabs, gateway: GatewayProcess, deaf: Browser, room: str) -> None:
    tab = await tabs.open(deaf, f"{gateway.http}/solo/", room=room, autostart=1)
    assert (await tab.says("No microphone was found")).state == "error"
    await tab.element("start").wait_for()


async def test_without_permission(tabs: Tabs, gateway: GatewayProcess, start: Start, room: str) -> None:
    shy = await start(options=["--use-fake-device-for-media-stream", "--deny-permission-prompts"])
    tab = await tabs.open(shy, f"{gateway.http}/solo/", room=room)
    await tab.click("start")
    assert (await tab.says("may not use the microphone")).state == "error"
    await shy.close()


async def test_under_an_address_where_browsers_give_no_microphone(
    tabs: Tabs, gateway: GatewayProcess, start: Start, room: str
) -> None:
    browser = await start(options=[*NO_MICROPHONE, "--host-resolver-rules=MAP gateway.test 127.0.0.1"])
    address = gateway.http.replace("127.0.0.1", "gateway.test")
    tab = await tabs.open(browser, f"{address}/solo/", room=room)
    await tab.click("start")
    assert (await tab.says("https or localhost")).state == "error"
    await browser.close()

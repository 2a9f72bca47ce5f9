"""All pages by the rules of axe-core, and what a screen reader finds on them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ViewportSize, expect

from tests.browser.conversation import Conversation
from tests.browser.tab import Tab, Tabs
from tests.gateway.process import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = ("", "solo/", "room/", "socket/", "overlay/?room=empty")
WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
PHONE: ViewportSize = {"width": 360, "height": 740}


async def violations(tab: Tab) -> str:
    """A report; empty: there are none. An overlay is no document, so what is good practice for those is left out."""
    only = [*WCAG] if "/overlay/" in tab.page.url else [*WCAG, "best-practice"]
    found = await Axe().run(tab.page, options={"runOnly": only, "resultTypes": ["violations"]})
    return str(found.generate_report()) if found.violations_count else ""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def idle(gateway: GatewayProcess, deaf: Browser) -> AsyncIterator[list[Tab]]:
    """All of them, as they are when nothing was done yet."""
    async with Tabs() as tabs:
        opened = [await tabs.open(deaf, f"{gateway.http}/{page}") for page in PAGES]
        for tab in opened:
            await tab.state("idle", "live")
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_keep_the_rules(idle: list[Tab], scheme: Literal["light", "dark"]) -> None:
    for tab in idle:
        await tab.page.emulate_media(color_scheme=scheme)
        assert not await violations(tab)


async def test_captions_keep_the_rules(solo: Conversation) -> None:
    for tab in solo.speaking.values():
        assert not await violations(tab)
        await tab.click("theme")
        assert not await violations(tab)


async def test_elements_have_roles_and_names(idle: list[Tab]) -> None:
    page = idle[PAGES.index("solo/")].page
    for role, name in (
        ("button", "Start"),
        ("log", "Captions"),
        ("combobox", "Microphone"),
        ("meter", "Microphone level"),
        ("textbox", "Room"),
        ("textbox", "Your name"),
        ("group", "Download the captions"),
        ("link", "Overlay"),
    ):
        await expect(page.get_by_role(role, name=name)).to_be_visible()


async def test_nothing_is_wider_than_a_phone(idle: list[Tab]) -> None:
    for tab in idle:
        await tab.page.set_viewport_size(PHONE)
        assert await tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]

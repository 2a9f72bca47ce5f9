"""All pages by the rules of axe-core, and what a screen reader finds on them."""

from __future__ import annotations

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect

from tests.browser.conversation import Conversation
from tests.browser.tab import Tab, Tabs
from tests.gateway.process import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = ("", "solo/", "room/", "socket/", "overlay/?room=empty")
WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
PHONE = {"width": 360, "height": 740}


async def violations(tab: Tab) -> str:
    """A report; empty: there are none. An overlay is no document, so what is good practice for those is left out."""
    only = [*WCAG] if "/overlay/" in tab.page.url else [*WCAG, "best-practice"]
    found = await Axe().run(tab.page, options={"runOnly": only, "resultTypes": ["violations"]})
    return str(found.generate_report()) if found.violations_count else ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_keep_the_rules(tabs: Tabs, gateway: GatewayProcess, deaf: Browser, scheme: str) -> None:
    for page in PAGES:
        tab = await tabs.open(deaf, f"{gateway.http}/{page}", context={"color_scheme": scheme})
        await tab.painted.until(lambda view: view.state in ("idle", "live"))
        assert not await violations(tab)


async def test_captions_keep_the_rules(solo: Conversation) -> None:
    for tab in solo.speaking.values():
        assert not await violations(tab)
        await tab.click("theme")
        assert not await violations(tab)


async def test_elements_have_roles_and_names(tabs: Tabs, gateway: GatewayProcess, deaf: Browser) -> None:
    page = (await tabs.open(deaf, f"{gateway.http}/solo/")).page
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


async def test_nothing_is_wider_than_a_phone(tabs: Tabs, gateway: GatewayProcess, deaf: Browser) -> None:
    for page in PAGES:
        tab = await tabs.open(deaf, f"{gateway.http}/{page}", context={"viewport": PHONE})
        await tab.painted.until(lambda view: view.state in ("idle", "live"))
        assert await tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]

"""The overlay: captions alone over what lies behind, as OBS loads it."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image
from playwright.async_api import Browser

from tests.browser.conversation import Conversation, text_of
from tests.browser.speech import Sentence
from tests.browser.tab import Tab, Tabs
from tests.gateway.process import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOWN_SECONDS = 6.0
"""For less than this a caption surely stands there; the page lets it fade after 8 s."""


async def alpha(tab: Tab) -> np.ndarray:
    """Opacity (H, W), 0 to 255, of what it paints."""
    picture = Image.open(io.BytesIO(await tab.page.screenshot(omit_background=True)))
    return np.asarray(picture.convert("RGBA"))[:, :, 3]


async def test_it_shows_whom_it_is_asked_for(solo: Conversation) -> None:
    assert {caption.name for view in solo.of_ben.painted.views for caption in view.captions} == {"Ben"}
    assert solo.said["Ben"].is_heard_in(text_of(solo.of_ben.painted.view, "Ben"))


async def test_it_has_as_many_lines_of_the_size_that_it_is_asked_for(solo: Conversation) -> None:
    box = await solo.of_ben.element("captions").bounding_box()
    size = await solo.of_ben.element("caption").last.evaluate("line => getComputedStyle(line).fontSize")
    assert size == "64px"
    assert box is not None and 64 <= box["height"] < 2 * 64


async def test_only_captions_are_painted_and_a_reload_shows_them_again(
    tabs: Tabs, gateway: GatewayProcess, anna: Browser, deaf: Browser, room: str, tonight: Sentence
) -> None:
    overlay = await tabs.open(deaf, f"{gateway.http}/overlay/", room=room)
    await overlay.state("live")
    assert not (await alpha(overlay)).any()
    await tabs.open(anna, f"{gateway.http}/solo/", room=room, name="Anna", autostart=1)
    before = await overlay.finals()
    painted = await alpha(overlay)
    assert painted.max() == 255
    height, width = painted.shape
    # Lines stand at the foot, in the middle.
    assert not painted[: height // 2].any() and not painted[:, : width // 50].any()
    await overlay.page.reload()
    if time.time() - (before.finals[-1].sent_ms or 0.0) / 1000 < SHOWN_SECONDS:
        after = await overlay.finals()
        assert [one.segment for one in after.finals] == [one.segment for one in before.finals[-len(after.finals) :]]
    await overlay.state("live")


async def test_it_says_what_its_address_lacks(tabs: Tabs, gateway: GatewayProcess, deaf: Browser) -> None:
    overlay = await tabs.open(deaf, f"{gateway.http}/overlay/")
    await overlay.says("?room=")

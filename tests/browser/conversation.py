"""Conversation: Anna and Ben speak in one room, each on a page of their own; others read it in another browser.

    conversation = await Conversation.opened(tabs, address, "solo", reading_browser, {})
    await conversation.held({"Anna": (browser, sentence), ...})

It is held once for many tests, which look at what was painted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser

from nemostream_agent.demo.painted import Caption, View
from tests.browser.speech import Sentence
from tests.browser.tab import Tab, Tabs

SECONDS = 40.0


@dataclass(frozen=True)
class Conversation:
    """
    Attributes:
        page: that they speak on; the room has its name too.
        reader: an overlay of all captions.
        of_ben: an overlay of Ben's captions, one line of 64 pixels.
        speaking: the tabs of those who speak, by name.
        said: what they say.
    """

    tabs: Tabs
    address: str
    page: str
    reader: Tab
    of_ben: Tab
    speaking: dict[str, Tab] = field(default_factory=dict)
    said: dict[str, Sentence] = field(default_factory=dict)

    @classmethod
    async def opened(cls, tabs: Tabs, address: str, page: str, browser: Browser, query: dict[str, Any]) -> Conversation:
        """The overlays, live; `query`: of theirs."""
        overlay = f"{address}/overlay/"
        reader = await tabs.open(browser, overlay, room=page, **query)
        of_ben = await tabs.open(browser, overlay, room=page, speaker="ben", lines=1, size=64, **query)
        for tab in reader, of_ben:
            await tab.state("live")
        return cls(tabs, address, page, reader, of_ben)

    async def held(self, people: dict[str, tuple[Browser, Sentence]]) -> Conversation:
        """All speak at once. Returns when all of it is final on all pages."""
        for name, (browser, sentence) in people.items():
            self.said[name] = sentence
            address = f"{self.address}/{self.page}/"
            self.speaking[name] = await self.tabs.open(browser, address, room=self.page, name=name, autostart=1)
        for tab in self.all_read:
            await tab.painted.until(lambda view: all(self._over(view, name) for name in self.said), SECONDS)
        await self.of_ben.painted.until(lambda view: self._over(view, "Ben"), SECONDS)
        return self

    @property
    def all_read(self) -> list[Tab]:
        """Those that show what everybody says."""
        return [self.reader, *self.speaking.values()]

    def _over(self, view: View, name: str) -> bool:
        """All that there is of this one is final, and it is about as many words as were said."""
        captions = of(view, name)
        words = sum(len(caption.text.split()) for caption in captions)
        return all(caption.painted_ms for caption in captions) and words >= len(self.said[name].text.split()) - 1


def of(view: View, name: str) -> list[Caption]:
    """The captions under a name."""
    return [caption for caption in view.captions if caption.name == name]


def text_of(view: View, name: str) -> str:
    return " ".join(caption.text for caption in of(view, name) if caption.final)

"""Conversation: Anna and Ben speak in one room, each on a page of their own; others read it in another browser.

    conversation = await Conversation.held(tabs, page, anna, ben, sentences, overlays)

It is held once for many tests, which look at what was painted.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemostream_agent.demo.painted import Caption, View
from tests.browser.speech import Sentence
from tests.browser.tab import Tab


@dataclass(frozen=True)
class Conversation:
    """
    Attributes:
        anna, ben: who speak, and what they say.
        reader: an overlay of all captions.
        of_ben: an overlay of Ben's captions.
    """

    anna: Tab
    ben: Tab
    reader: Tab
    of_ben: Tab
    said: dict[str, Sentence]

    async def held(self) -> Conversation:
        """When all that was said is final on all pages."""
        for tab in (self.anna, self.ben, self.reader):
            await tab.painted.until(lambda view: all(self.over(view, name) for name in self.said), 40)
        await self.of_ben.painted.until(lambda view: self.over(view, "Ben"), 40)
        return self

    def over(self, view: View, name: str) -> bool:
        """All of what this one said is final: as many words as were said."""
        captions = of(view, name)
        words = sum(len(caption.text.split()) for caption in captions)
        return all(caption.painted_ms for caption in captions) and words >= len(self.said[name].text.split()) - 1


def of(view: View, name: str) -> list[Caption]:
    """The captions under a name."""
    return [caption for caption in view.captions if caption.name == name]


def text_of(view: View, name: str) -> str:
    return " ".join(caption.text for caption in of(view, name) if caption.final)

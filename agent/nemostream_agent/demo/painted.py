"""Painted: the captions of one of our pages as they stand in its DOM, for the demo and the tests.

    painted = await Painted.watch(page)         # before page.goto
    view = await painted.until(lambda view: any(caption.final for caption in view.captions))

The page reports by itself: nobody polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.async_api import Page

TIMEOUT = 30.0
WATCH = """
(() => {
  const number = text => text === undefined ? null : Number(text);
  const caption = line => ({
    speaker: line.dataset.speaker, segment: line.dataset.segment, final: line.dataset.final === "true",
    name: line.querySelector(".name")?.textContent ?? "", text: line.querySelector(".text")?.textContent ?? "",
    first_ms: number(line.dataset.firstPaintedMs), painted_ms: number(line.dataset.paintedMs),
    sent_ms: number(line.dataset.sentMs),
    aloud: line.closest("[aria-live=polite]") !== null && line.closest("[aria-hidden=true]") === null,
  });
  let microphone = null, last = "";
  const report = () => {
    const view = {
      state: document.body?.dataset.state ?? "",
      error: document.querySelector("[data-testid=error]")?.textContent.trim() ?? "",
      microphone_ms: microphone,
      captions: [...document.querySelectorAll("[data-testid=caption]")].map(caption),
    };
    const text = JSON.stringify(view);
    if (text !== last) window.__painted(view);
    last = text;
  };
  const devices = navigator.mediaDevices;
  if (devices) {
    const open = devices.getUserMedia.bind(devices);
    devices.getUserMedia = async wanted => {
      const stream = await open(wanted);
      microphone = performance.timeOrigin + performance.now();
      return stream;
    };
  }
  const look = {attributes: true, characterData: true, childList: true, subtree: true};
  addEventListener("DOMContentLoaded", () => { new MutationObserver(report).observe(document.body, look); report(); });
})();
"""


@dataclass(frozen=True, slots=True)
class Caption:
    """A line of captions. Times are Unix time in ms; None: the page does not say.

    Attributes:
        first_ms: when its first interim was painted.
        painted_ms: when its final was painted.
        sent_ms: when the gateway sent it.
        aloud: screen readers say it.
    """

    speaker: str
    name: str
    segment: str
    text: str
    final: bool
    first_ms: float | None
    painted_ms: float | None
    sent_ms: float | None
    aloud: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """What a page shows.

    Attributes:
        state: data-state of its body.
        error: the sentence of an error; empty: none.
        microphone_ms: Unix time in ms when a microphone was last opened.
        captions: as they stand below each other.
    """

    state: str = ""
    error: str = ""
    microphone_ms: float | None = None
    captions: tuple[Caption, ...] = ()

    @property
    def finals(self) -> list[Caption]:
        return [caption for caption in self.captions if caption.final]

    @property
    def text(self) -> str:
        """All finals."""
        return " ".join(caption.text for caption in self.finals)


class Painted:
    """`views`: all that the page has shown, a view whenever something changed."""

    def __init__(self, seen: Callable[[View], None] | None = None) -> None:
        self.views: list[View] = []
        self._seen = seen
        self._news = asyncio.Condition()

    @classmethod
    async def watch(cls, page: Page, seen: Callable[[View], None] | None = None) -> Painted:
        """From the page's next address on, over reloads too; `seen` is called with each view."""
        painted = cls(seen)
        await page.expose_function("__painted", painted._take)
        await page.add_init_script(WATCH)
        return painted

    @property
    def view(self) -> View:
        """The newest."""
        return self.views[-1] if self.views else View()

    async def until(self, holds: Callable[[View], bool], timeout: float = TIMEOUT) -> View:
        """The newest view as soon as `holds` is true of it.

        Raises:
            TimeoutError: it never is; with what was seen last.
        """
        try:
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(lambda: bool(self.views) and holds(self.view))
        except TimeoutError:
            raise TimeoutError(f"it was not painted within {timeout:g} s; last seen: {self.view}") from None
        return self.view

    async def _take(self, said: dict[str, Any]) -> None:
        captions = tuple(Caption(**caption) for caption in said.pop("captions"))
        async with self._news:
            self.views.append(View(captions=captions, **said))
            self._news.notify_all()
        if self._seen is not None:
            self._seen(self.view)

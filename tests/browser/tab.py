"""Tab: one of our pages in a browser, by the names that its elements have for tests (data-testid).

async with Tabs() as tabs:
    tab = await tabs.open(browser, f"{gateway.http}/solo/", room="kitchen", autostart=1)
    await tab.painted.until(lambda view: view.state == "live")
"""

from __future__ import annotations

from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from playwright.async_api import Browser, BrowserContext, Locator, Page

from nemostream_agent.demo.painted import Painted, View

PEERS = """
(() => {
  const Peer = RTCPeerConnection;
  window.__peers = [];
  RTCPeerConnection = new Proxy(Peer, {construct(to, given) {
    const peer = new to(...given);
    window.__peers.push(peer);
    return peer;
  }});
})();
"""
WAYS = """
async () => {
  const ways = [];
  for (const peer of window.__peers) {
    const stats = await peer.getStats();
    for (const pair of stats.values())
      if (pair.type === "candidate-pair" && pair.nominated)
        ways.push([stats.get(pair.localCandidateId).address, stats.get(pair.remoteCandidateId).address]);
  }
  return ways;
}
"""


class Tab:
    """
    Attributes:
        painted: what it shows.
        problems: errors of its scripts, and what its policy forbids.
    """

    def __init__(self, page: Page, painted: Painted) -> None:
        self.page = page
        self.painted = painted
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def element(self, name: str) -> Locator:
        return self.page.get_by_test_id(name)

    async def click(self, name: str) -> None:
        await self.element(name).click()

    async def state(self, *states: str) -> View:
        """The view as soon as the page is in one of these states."""
        return await self.painted.until(lambda view: view.state in states)

    async def says(self, error: str) -> View:
        """The view as soon as the sentence of an error holds these words."""
        return await self.painted.until(lambda view: error.lower() in view.error.lower())

    async def finals(self, count: int = 1) -> View:
        """The view as soon as so many finals are painted, and nothing else stands there."""
        return await self.painted.until(lambda view: len(view.finals) >= count and settled(view))

    async def ways(self) -> list[tuple[str, str]]:
        """Local and remote address of each pair of candidates that media takes or took."""
        return [(local, remote) for local, remote in await self.page.evaluate(WAYS)]

    async def download(self, name: str) -> str:
        """The file that a button gives."""
        async with self.page.expect_download() as coming:
            await self.click(name)
        return (await (await coming.value).path()).read_text(encoding="utf-8")


def settled(view: View) -> bool:
    return all(caption.final and caption.painted_ms is not None for caption in view.captions)


class Tabs:
    """Every tab is a visitor of its own: nothing is stored from one to the next."""

    def __init__(self) -> None:
        self._tabs: list[Tab] = []
        self._contexts: list[BrowserContext] = []

    async def open(self, browser: Browser, address: str, /, context: dict[str, Any] | None = None, **query: Any) -> Tab:
        """`context`: of Playwright's new_context."""
        visitor = await browser.new_context(**(context or {}))
        self._contexts.append(visitor)
        page = await visitor.new_page()
        await page.add_init_script(PEERS)
        tab = Tab(page, await Painted.watch(page))
        self._tabs.append(tab)
        await page.goto(f"{address}?{urlencode(query)}" if query else address)
        return tab

    async def __aenter__(self) -> Tabs:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for context in self._contexts:
            await context.close()
        assert kind is not None or not any(tab.problems for tab in self._tabs), [tab.problems for tab in self._tabs]

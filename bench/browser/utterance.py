"""One sentence, from Chromium's fake microphone through a page of ours to what two browsers paint.

stage = Stage(services, start, reading=await start(), folder=folder)
heard = await stage.say("solo", "monday", lead=3.08, number=1)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.async_api import Browser

from bench.server.tracks import LOUD
from nemostream_agent.chromium import Start, write_wav
from nemostream_agent.demo.captioned_room import captioned_room
from nemostream_agent.demo.painted import Caption, View
from nemostream_agent.demo.services import Services
from nemostream_agent.participant import RATE, read_clip
from tests.browser.tab import Tab, Tabs, settled
from tests.clips import TEXTS, path

PAGES = ("solo", "room", "socket")
TAIL = 3.0
"""Seconds of silence behind a sentence: an open microphone."""
OVER_SECONDS = 15.0
"""Within which the final must be painted behind the last word."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a reader saw of a sentence. Times in ms; None: there is nothing to take them of.

    Attributes:
        page: that it was spoken on.
        reader: "speaker", the page itself, or "overlay", in another browser.
        first: from the begin of the first word until its first text was painted.
        final: from the end of the last word until the last final was painted.
        sent: from when the gateway sent that final until it was painted.
    """

    page: str
    reader: str
    said: str
    heard: str
    first: float | None
    final: float | None
    sent: float | None


@dataclass(frozen=True)
class Stage:
    """
    Attributes:
        reading: the browser of the overlay.
        folder: for sound files.
    """

    services: Services
    start: Start
    reading: Browser
    folder: Path

    async def say(self, page: str, clip: str, lead: float, number: int) -> list[Utterance]:
        """Speak the clip, `lead` seconds behind the opening of the microphone, in a room of its own.

        Raises:
            TimeoutError: a final was not painted; with what was seen.
        """
        pcm = read_clip(path(clip))
        loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > LOUD * np.abs(pcm.astype(np.int32)).max())
        sound = write_wav(self.folder / "speech.wav", pcm, RATE, lead, TAIL)
        browser = await self.start(sound)
        try:
            async with Tabs() as tabs, self._room(page, f"{page}-{number}") as query:
                readers: dict[str, Tab] = {}
                if page != "socket":
                    overlay = f"{self.services.address}/overlay/"
                    readers["overlay"] = await tabs.open(self.reading, overlay, **query)
                    await readers["overlay"].state("live")
                query = {} if page == "socket" else {"room": f"{page}-{number}", "name": "Anna"}
                speaker = await tabs.open(browser, f"{self.services.address}/{page}/", autostart=1, **query)
                readers = {"speaker": speaker, **readers}
                opened = await speaker.painted.until(lambda view: view.microphone_ms is not None)
                begins, ends = ((opened.microphone_ms or 0.0) + 1000 * (lead + at / RATE) for at in loud[[0, -1]])
                found, seconds = [], lead + len(pcm) / RATE + OVER_SECONDS
                for name, tab in readers.items():
                    view = await tab.painted.until(lambda view: _over(view, ends), seconds)
                    found.append(_utterance(page, name, TEXTS[clip], view, begins, ends))
                return found
        finally:
            await browser.close()

    @contextlib.asynccontextmanager
    async def _room(self, page: str, name: str) -> AsyncIterator[dict[str, Any]]:
        """What an overlay is asked for; of a LiveKit room, once the agent is in it."""
        if page != "room":
            yield {"room": name}
            return
        assert self.services.livekit is not None
        async with captioned_room(self.services.livekit, name):
            yield {"room": name, "livekit": 1}


def _over(view: View, ends: float) -> bool:
    """Something was painted behind the last word, and all that stands there is final."""
    return settled(view) and any((one.painted_ms or 0.0) > ends for one in view.captions)


def _utterance(page: str, reader: str, said: str, view: View, begins: float, ends: float) -> Utterance:
    last = max(view.finals, key=_painted)
    first = min((one.first_ms for one in view.captions if one.first_ms and one.first_ms > begins), default=None)
    return Utterance(
        page=page,
        reader=reader,
        said=said,
        heard=view.text,
        first=None if first is None else round(first - begins, 1),
        final=round(_painted(last) - ends, 1),
        sent=None if last.sent_ms is None else round(_painted(last) - last.sent_ms, 1),
    )


def _painted(caption: Caption) -> float:
    return caption.painted_ms or 0.0

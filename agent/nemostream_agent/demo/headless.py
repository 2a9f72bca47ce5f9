"""The demo without a screen: the clip is spoken into the real pages, and their captions appear here."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import numpy as np

from ..chromium import Pcm, Start, write_wav
from ..participant import RATE, read_clip
from . import CLIP, TRANSCRIPT, DemoError
from .captioned_room import captioned_room
from .painted import Caption, Painted, View
from .services import Services

if TYPE_CHECKING:
    from playwright.async_api import Browser

ROOM = "demo"
LEAD, TAIL = 3.0, 2.0
"""Seconds of silence before the clip, in which the page connects, and behind it."""
SETTLED_SECONDS = 20.0
"""In which the last final must come behind the clip."""
CLEAR_LINE = "\r\033[K"


async def speak(services: Services, start: Start) -> None:
    """Into the solo page, and into the room page where there are rooms.

    Raises:
        BrowserError, DemoError
    """
    clip = read_clip(CLIP)
    with tempfile.TemporaryDirectory(prefix="nemostream-") as folder:
        browser = await start(write_wav(Path(folder) / "speech.wav", clip, RATE, LEAD, TAIL))
        await _speak_on(browser, f"{services.address}/solo/", clip)
        if services.livekit is not None:
            async with captioned_room(services.livekit, ROOM):
                await _speak_on(browser, f"{services.address}/room/", clip)


async def _speak_on(browser: Browser, address: str, clip: Pcm) -> None:
    print(f"\nsomeone opens {address} and speaks:\n", flush=True)
    page = await browser.new_page()
    painted = await Painted.watch(page, Screen().show)
    await page.goto(f"{address}?{urlencode({'room': ROOM, 'name': 'Anna', 'autostart': 1})}")
    view = await _reach(painted, lambda view: view.microphone_ms is not None, "it opened no microphone")
    assert view.microphone_ms is not None
    spoken_ms = view.microphone_ms + 1000 * (LEAD + (len(clip) - silence_behind(clip)) / RATE)
    view = await _reach(painted, lambda view: _settled(view, spoken_ms), "no final caption came")
    said = max(caption.painted_ms or 0.0 for caption in view.finals) - spoken_ms
    print(f"\n  said:  {TRANSCRIPT.read_text().strip()}\n  heard: {view.text}")
    print(f"  the final caption was painted {said / 1000:.2f} s after the last word was spoken", flush=True)
    await page.close()


async def _reach(painted: Painted, holds: Callable[[View], bool], otherwise: str) -> View:
    """The view of which `holds` is true, or an error's."""
    try:
        view = await painted.until(lambda view: holds(view) or view.state == "error", SETTLED_SECONDS + LEAD + TAIL)
    except TimeoutError:
        raise DemoError(f"{otherwise}; the page's state is {painted.view.state or 'not known'}.") from None
    if view.state == "error":
        raise DemoError(f"the page says: {view.error}")
    return view


def _settled(view: View, spoken_ms: float) -> bool:
    """The clip is over, and all that is shown is final."""
    painted = [caption.painted_ms for caption in view.captions]
    return bool(painted) and all(ms is not None for ms in painted) and max(ms or 0.0 for ms in painted) > spoken_ms


def silence_behind(pcm: Pcm) -> int:
    """Samples behind the last one above -40 dB of full scale."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 328)
    return len(pcm) - 1 - int(loud[-1]) if len(loud) else 0


class Screen:
    """Captions on the terminal: an interim is written over by the next, a final stays."""

    def __init__(self) -> None:
        self._shown: dict[str, Caption] = {}
        self._live = sys.stdout.isatty()

    def show(self, view: View) -> None:
        for caption in view.captions:
            before = self._shown.get(caption.segment)
            if before is None or (before.text, before.final) != (caption.text, caption.final):
                self._print(caption)
            self._shown[caption.segment] = caption

    def _print(self, caption: Caption) -> None:
        line = f"  {caption.name} | {'final  ' if caption.final else 'interim'} | {caption.text}"
        if not self._live:
            print(line, flush=True)
        else:
            # A line that is wider than the terminal could not be written over.
            line = line if caption.final else line[: shutil.get_terminal_size().columns - 1]
            print(CLEAR_LINE + line, end="\n" if caption.final else "", flush=True)

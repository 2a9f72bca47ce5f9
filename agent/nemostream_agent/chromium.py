"""Headless Chromium whose microphone plays a sound file, for the demo and the tests.

    async with browsers() as start:
        browser = await start(Path("speech.wav"))
        page = await browser.new_page()

It is the Chromium on PATH, driven by Playwright, of which only the driver is needed.
"""

from __future__ import annotations

import shutil
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from playwright.async_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_MICROPHONE = ("--use-fake-ui-for-media-stream",)
"""Every permission is granted, so that candidates of ICE are addresses and no names that only mDNS knows; but there is
no device."""
ALWAYS = (
    # Candidates of 127.0.0.1 as well, or a machine without a network has none.
    "--allow-loopback-in-peer-connection",
    "--autoplay-policy=no-user-gesture-required",
    # Nothing outside this machine is looked up, STUN servers neither.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)

Pcm = npt.NDArray[np.int16]
Start = Callable[..., Awaitable["Browser"]]


class BrowserError(Exception):
    """Chromium or Playwright is missing, or does not start; one sentence says what to do."""


def find() -> Path:
    """The Chromium on PATH.

    Raises:
        BrowserError: there is none.
    """
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise BrowserError("Chromium is missing: apt install chromium.")


def microphone(sound: Path | None, loop: bool = False) -> tuple[str, ...]:
    """Options for a microphone that plays the WAV file from its begin whenever it is opened (within 10 ms), then
    silence, or the file again; None: there is no microphone."""
    if sound is None:
        return NO_MICROPHONE
    file = f"--use-file-for-fake-audio-capture={sound}{'' if loop else '%noloop'}"
    return (*NO_MICROPHONE, "--use-fake-device-for-media-stream", file)


def write_wav(path: Path, pcm: Pcm, rate: int, lead: float = 0.0, tail: float = 0.0) -> Path:
    """Mono samples (N,) as a WAV file, with `lead` and `tail` seconds of silence around them."""
    silence = [np.zeros(round(seconds * rate), np.int16) for seconds in (lead, tail)]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.concatenate([silence[0], pcm, silence[1]]).astype("<i2").tobytes())
    return path


@asynccontextmanager
async def browsers() -> AsyncIterator[Start]:
    """Starts browsers: `await start(sound)`, or `await start(options=...)` for options other than `microphone` gives.
    All are closed at the end.

    Raises:
        BrowserError: of the missing package; from `start` too.
    """
    try:
        from playwright.async_api import Error, async_playwright
    except ModuleNotFoundError:
        raise BrowserError("Playwright is missing: pip install playwright.") from None
    path = find()
    async with async_playwright() as playwright:

        async def start(
            sound: Path | None = None, *, loop: bool = False, options: Sequence[str] | None = None
        ) -> Browser:
            chosen = microphone(sound, loop) if options is None else options
            try:
                # Who started us sees to Ctrl-C: what is open is closed below, or dies with the driver.
                return await playwright.chromium.launch(
                    executable_path=path, args=[*ALWAYS, *chosen], handle_sigint=False, handle_sigterm=False
                )
            except Error as error:
                raise BrowserError(f"Chromium does not start: {error.message.strip().splitlines()[0]}") from None

        yield start

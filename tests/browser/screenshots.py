"""python -m tests.browser.screenshots FOLDER: pictures of all pages with real captions.

Each page light and dark, on a desktop and on a phone: FOLDER/solo-desktop-light.png and so on. Two people talk, each
with a browser of their own; the pictures are taken when all is said, and one more while something is being said.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nemostream_agent.agent_process import AgentProcess
from nemostream_agent.chromium import Start, browsers, write_wav
from nemostream_agent.demo.captioned_room import captioned_room
from nemostream_agent.livekit_server import LiveKitServer, find_or_build
from nemostream_agent.participant import RATE, read_clip
from tests.browser.tab import Tab, Tabs
from tests.clips import path
from tests.gateway.process import GatewayProcess

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
SCHEMES = ("light", "dark")
LEAD, PAUSE = 3.0, 1.2
TURNS = (("Anna", "tonight"), ("Ben", "tomorrow"), ("Anna", "music"), ("Ben", "refund"))


def script(folder: Path) -> dict[str, Path]:
    """A sound file for each, in which they speak in turn."""
    parts: dict[str, list[np.ndarray]] = {name: [np.zeros(round(LEAD * RATE), np.int16)] for name, _ in TURNS}
    for speaker, clip in TURNS:
        pcm = np.concatenate([read_clip(path(clip)), np.zeros(round(PAUSE * RATE), np.int16)])
        for name, heard in parts.items():
            heard.append(pcm if name == speaker else np.zeros(len(pcm), np.int16))
    return {name: write_wav(folder / f"{name}.wav", np.concatenate(heard), RATE) for name, heard in parts.items()}


async def pictures(tab: Tab, name: str, out: Path) -> None:
    for size, (width, height) in SIZES.items():
        await tab.page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            await tab.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            await tab.page.screenshot(path=out / f"{name}-{size}-{scheme}.png")


async def conversation(
    tabs: Tabs, start: Start, sounds: dict[str, Path], address: str, page: str, out: Path, **overlay: Any
) -> None:
    reading = await start()
    overlays = await tabs.open(reading, f"{address}/overlay/", room="meeting", size=40, **overlay)
    await overlays.state("live")
    speaking = {}
    for name, sound in sounds.items():
        browser = await start(sound)
        speaking[name] = await tabs.open(browser, f"{address}/{page}/", room="meeting", name=name)
    await asyncio.gather(*(tab.click("start") for tab in speaking.values()))
    anna = speaking["Anna"]
    await anna.page.set_viewport_size({"width": SIZES["desktop"][0], "height": SIZES["desktop"][1]})
    await anna.painted.until(
        lambda view: len(view.finals) >= 2 and any(len(one.text.split()) > 2 for one in view.captions if not one.final)
    )
    await anna.page.screenshot(path=out / f"{page}-speaking.png")
    await anna.finals(len(TURNS))
    await overlays.page.screenshot(path=out / f"overlay-{page}.png", omit_background=True)
    await pictures(anna, page, out)
    for tab in speaking.values():
        await tab.page.context.browser.close()  # type: ignore[union-attr]


async def run(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, LiveKitServer(find_or_build()) as server:
        sounds = script(Path(folder))
        options = ("--ice-address", "127.0.0.1", "--chunk-ms", "160")
        with GatewayProcess(*options, environment=server.environment) as gateway:
            async with browsers() as start, Tabs() as tabs:
                await conversation(tabs, start, sounds, gateway.http, "solo", out)
                environment = {"NEMOSTREAM_SOCKET": str(gateway.place.socket)}
                async with AgentProcess(server, environment=environment), captioned_room(server, "meeting"):
                    await conversation(tabs, start, sounds, gateway.http, "room", out, livekit=1)
                reading = await start()
                await pictures(await tabs.open(reading, f"{gateway.http}/"), "home", out)
                socket = await tabs.open(reading, f"{gateway.http}/socket/")
                await socket.element("file").set_input_files(sounds["Anna"])
                await socket.state("stopped")
                await pictures(socket, "socket", out)
                refused = await tabs.open(reading, f"{gateway.http}/solo/", room="meeting", autostart=1)
                await refused.state("error")
                await pictures(refused, "error", out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the pictures")
    asyncio.run(run(parser.parse_args().out))


if __name__ == "__main__":
    main()

"""The socket page: the microphone over a WebSocket, worked by the keyboard alone; and recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import srt
import webvtt
from playwright.async_api import Browser

from nemostream_agent.chromium import write_wav
from nemostream_agent.participant import RATE
from tests.browser.speech import Sentence
from tests.browser.tab import Tab, Tabs, settled
from tests.gateway.process import GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def tab_to(tab: Tab, name: str) -> None:
    """Press the tabulator until the focus is there."""
    for _ in range(40):
        await tab.page.keyboard.press("Tab")
        if await tab.page.evaluate("document.activeElement?.dataset.testid") == name:
            return
    raise AssertionError(f"the tabulator does not reach {name}")


async def test_by_the_keyboard_alone_one_speaks_and_keeps_the_captions(
    tabs: Tabs, gateway: GatewayProcess, anna: Browser, tonight: Sentence
) -> None:
    tab = await tabs.open(anna, f"{gateway.http}/socket/")
    await tab.state("idle")
    await tab_to(tab, "start")
    await tab.page.keyboard.press("Enter")
    await tab.state("live")
    view = await tab.finals()
    assert tonight.is_heard_in(view.text)
    first = view.finals[0]
    assert first.first_ms is not None and first.painted_ms is not None and first.first_ms < first.painted_ms
    assert float(await tab.element("latency").get_attribute("data-ms") or 0) > 0
    await tab_to(tab, "download-vtt")
    async with tab.page.expect_download() as coming:
        await tab.page.keyboard.press("Enter")
    captions = webvtt.from_string((await (await coming.value).path()).read_text()).captions
    assert tonight.is_heard_in(" ".join(caption.text for caption in captions))
    await tab_to(tab, "stop")
    await tab.page.keyboard.press("Enter")
    await tab.state("stopped")


async def test_a_recording_is_read_while_it_is_heard(
    tabs: Tabs, gateway: GatewayProcess, deaf: Browser, tonight: Sentence, refund: Sentence, tmp_path: Path
) -> None:
    """Sixteen sentences: the first is shown before the last."""
    pause = np.zeros(RATE, np.int16)
    long = np.concatenate([part for _ in range(8) for part in (tonight.pcm, pause, refund.pcm, pause)])
    file = write_wav(tmp_path / "long.wav", long, RATE)
    tab = await tabs.open(deaf, f"{gateway.http}/socket/")
    await tab.element("file").set_input_files(file)
    await tab.state("live")
    await tab.state("stopped")
    view = await tab.painted.until(
        lambda view: view.text.split().count("tonight") == view.text.split().count("refund") == 8 and settled(view)
    )
    assert (view.finals[-1].painted_ms or 0.0) - (view.finals[0].painted_ms or 0.0) > 200
    cues = webvtt.from_string(await tab.download("download-vtt")).captions
    assert " ".join(cue.text.replace("\n", " ") for cue in cues).split() == view.text.split()
    assert cues[-1].end_in_seconds <= len(long) / RATE
    assert len(list(srt.parse(await tab.download("download-srt")))) == len(cues)
    assert (await tab.download("download-txt")).split() == view.text.split()


async def test_a_file_that_is_no_recording_is_a_sentence(
    tabs: Tabs, gateway: GatewayProcess, deaf: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "words.wav"
    file.write_text("these are words " * 100)
    tab = await tabs.open(deaf, f"{gateway.http}/socket/")
    await tab.element("file").set_input_files(file)
    await tab.says("the gateway refused")

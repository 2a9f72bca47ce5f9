"""`make demo`: a server, the captions agent and a participant who speaks a sentence; its captions appear here, live."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import numpy as np

from .agent_process import AgentError, AgentProcess
from .livekit_server import LiveKitServer, ServerError, find_or_build
from .participant import RATE, Caption, Microphone, Pcm, Viewer, join, read_clip

ASSETS = Path(__file__).with_name("assets")
CLIP = ASSETS / "demo.opus"
TRANSCRIPT = ASSETS / "demo.txt"
FINAL_TIMEOUT = 20.0
"""Seconds behind the sentence within which its final caption must come; the first job may still load its model."""
CLEAR_LINE = "\r\033[K"


class DemoError(Exception):
    """The demo did not come to its end; one sentence says why."""


async def demo() -> None:
    """
    Raises:
        ServerError, AgentError, DemoError: what could not be started, or did not come.
    """
    clip = read_clip(CLIP)
    print("starting livekit-server and the captions agent", flush=True)
    with LiveKitServer(find_or_build()) as server:
        async with AgentProcess(server) as agent:
            viewer = await Viewer().join(server, "demo", "viewer")
            speaker = await join(server, "demo", "speaker")
            try:
                print("someone joins and speaks; someone else in the room reads:\n", flush=True)
                await _converse(await Microphone.publish(speaker), viewer, clip)
            except TimeoutError:
                raise DemoError(f"No final caption came. The agent's log ends with:\n{agent.log[-2000:]}") from None
            finally:
                await speaker.disconnect()
                await viewer.leave()


async def _converse(microphone: Microphone, viewer: Viewer, clip: Pcm) -> None:
    """Play the clip and show its captions, until it is over and its last segment is final."""
    screen = Screen()
    await microphone.heard()
    reading = asyncio.create_task(screen.show(viewer))
    try:
        await microphone.play(clip)
        spoken_at = time.monotonic() - _silence_behind(clip) / RATE
        # An open microphone goes on with silence by itself.
        await asyncio.wait_for(screen.settled.wait(), FINAL_TIMEOUT)
    finally:
        reading.cancel()
    print(f"\n  said:  {TRANSCRIPT.read_text().strip()}\n  heard: {' '.join(screen.finals)}")
    print(
        f"  the final caption was read {screen.final_at - spoken_at:.2f} s after the last word was spoken", flush=True
    )


def _silence_behind(clip: Pcm) -> int:
    """Samples behind the last one above -40 dB of full scale."""
    loud = np.flatnonzero(np.abs(clip.astype(np.int32)) > 328)
    return len(clip) - 1 - int(loud[-1]) if len(loud) else 0


class Screen:
    """Captions on the terminal: an interim is written over by the next, a final stays."""

    def __init__(self) -> None:
        self.finals: list[str] = []
        self.final_at = 0.0
        self.settled = asyncio.Event()
        self._live = sys.stdout.isatty()

    async def show(self, viewer: Viewer) -> None:
        async for caption in viewer:
            self._print(caption)
            if caption.final:
                self.finals.append(caption.text)
                self.final_at = time.monotonic()
                self.settled.set()
            else:
                self.settled.clear()

    def _print(self, caption: Caption) -> None:
        line = f"  {caption.speaker} | {'final  ' if caption.final else 'interim'} | {caption.text}"
        over = self._live and not caption.final
        print((CLEAR_LINE if self._live else "") + line, end="" if over else "\n", flush=True)


def main() -> int:
    try:
        asyncio.run(demo())
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (ServerError, AgentError, DemoError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

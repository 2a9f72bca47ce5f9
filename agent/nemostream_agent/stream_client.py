"""`python -m nemostream_agent client FILE|microphone URL`: send a file or the microphone to a speech server.

Texts go to standard output, a line for each final one; on a terminal the newest text stands below them until it is
final. Latencies and errors go to standard error.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated

import typer

from nemostream.errors import NemostreamError

from . import sound_source
from .protocols.address import is_upload
from .protocols.errors import ClientError
from .protocols.line import connect
from .protocols.talk import RATE, Heard
from .protocols.upload import transcribe

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
MICROPHONE = "microphone"
CLEAR_LINE = "\r\033[K"
INTERRUPTED = 130
"""Exit status of a program that SIGINT has ended."""


class Screen:
    """Texts on the terminal: one that is not final is written over by the next. In a file or a pipe, finals only."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()

    def show(self, heard: Heard) -> None:
        if heard.final and heard.text:
            print((CLEAR_LINE if self._live else "") + heard.text, flush=True)
        elif self._live:
            # A line that is wider than the terminal could not be written over.
            print(CLEAR_LINE + heard.text[1 - shutil.get_terminal_size().columns :], end="", flush=True)


class Stopwatch:
    """When things happened in a live stream, in seconds of `clock`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = self._first = self._ended = self._last = clock()
        self._heard, self._samples = False, 0

    def sent(self, samples: int) -> None:
        if not self._samples:
            self._began = self._clock()
        self._samples += samples

    def ended(self) -> None:
        """All audio is sent."""
        self._ended = self._last = self._clock()

    def heard(self, heard: Heard) -> None:
        self._last = self._clock()
        if heard.text and not self._heard:
            self._heard, self._first = True, self._last

    def summary(self) -> str:
        first = f"the first text {self._first - self._began:.2f} s after its begin" if self._heard else "no text"
        last = f"the last answer {self._last - self._ended:.2f} s after its end"
        took = f"{self._samples / RATE:.2f} s of audio, sent in {self._ended - self._began:.2f} s"
        return f"{took}; {first}, {last}"


async def stream(
    frames: Callable[[asyncio.Event], AsyncIterator[bytes]], url: str, key: str | None, options: dict[str, str]
) -> None:
    """Until everything is said; the first Ctrl-C ends the audio, the second one everything.

    Raises:
        ClientError, AudioError
    """
    loop = asyncio.get_running_loop()
    stop, main = asyncio.Event(), asyncio.current_task()
    assert main is not None
    screen, watch = Screen(), Stopwatch(loop.time)

    def interrupt() -> None:
        if stop.is_set():
            main.cancel()
        stop.set()

    async def noted() -> AsyncIterator[bytes]:
        async for frame in frames(stop):
            watch.sent(len(frame) // 2)
            yield frame

    def hear(heard: Heard) -> None:
        watch.heard(heard)
        screen.show(heard)

    async with connect(url, key, options) as line:
        loop.add_signal_handler(signal.SIGINT, interrupt)
        await line.speak(noted(), hear, watch.ended)
    print(watch.summary(), file=sys.stderr)


async def upload(file: Path, url: str, key: str | None, options: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    print(await transcribe(url, file, key, options))
    print(f"answered after {loop.time() - began:.2f} s", file=sys.stderr)


@app.command(help="Send a file or the microphone to a speech server; its address says which protocol it speaks.")
def client(
    source: Annotated[str, typer.Argument(metavar="FILE|microphone", help="a sound or video file, or microphone")],
    url: Annotated[str, typer.Argument(metavar="URL", help="of the server, as ws://127.0.0.1:8000/ws")],
    key: Annotated[str | None, typer.Option(envvar="NEMOSTREAM_API_KEY", help="API key or token")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="as fast as the server takes it, not as it is spoken")] = False,
    language: Annotated[str | None, typer.Option(help="for models that take one")] = None,
    chunk_ms: Annotated[int | None, typer.Option(help="audio per step; default: the server's")] = None,
    keyterm: Annotated[list[str] | None, typer.Option(help="a name or phrase to favour; may be repeated")] = None,
) -> None:
    given = {"language": language, "chunk_ms": chunk_ms, "keyterms": ",".join(keyterm or ())}
    options = {name: str(value) for name, value in given.items() if value}
    if is_upload(url):
        if source == MICROPHONE:
            raise ClientError("address", "a microphone needs an address that begins with ws:// or wss://")
        asyncio.run(upload(Path(source), url, key, options))
    elif source == MICROPHONE:
        asyncio.run(stream(sound_source.microphone, url, key, options))
    else:
        asyncio.run(stream(sound_source.file(Path(source), paced=not fast), url, key, options))


def main() -> None:
    """Run the command; what goes wrong is one sentence on standard error and exit status 1."""
    try:
        app(prog_name="nemostream-agent client")
    except (ClientError, NemostreamError, OSError) as error:
        print(f"nemostream-agent: {error}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(INTERRUPTED)

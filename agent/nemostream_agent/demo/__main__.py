"""`python -m nemostream_agent.demo`: the pages on this machine, until Ctrl-C; --headless: a clip spoken into them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from ..chromium import BrowserError, browsers
from . import DemoError
from .headless import speak
from .services import Services

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
INTERRUPTED = 130
"""Exit status of a program that SIGINT has ended."""


async def show(port: int | None, livekit: bool | None, browser: bool) -> int:
    """The pages, until a signal comes; the exit status.

    Raises:
        DemoError: something does not start, or ends by itself.
    """
    async with Services(port, livekit) as services:
        print(f"\n  {services.address}\n", flush=True)
        print("Ctrl-C stops everything", file=sys.stderr, flush=True)
        if browser and _has_screen():
            # Some browsers are waited for until they are closed.
            threading.Thread(target=webbrowser.open, args=(services.address,), daemon=True).start()
        try:
            raise await services.ended()
        except asyncio.CancelledError:
            return 0  # the way to end it


async def headless(port: int | None, livekit: bool | None) -> int:
    """
    Raises:
        DemoError, BrowserError
    """
    async with browsers() as start, Services(port, livekit, loopback=True) as services:
        await speak(services, start)
    return 0


def _has_screen() -> bool:
    """Whether a browser has a window; one that runs in the terminal has no microphone."""
    return sys.platform == "darwin" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


async def _until_signalled(work: Coroutine[Any, Any, int]) -> int:
    """The first signal ends the work; further ones do not disturb it while it stops what it started."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    signalled = False

    def end() -> None:
        nonlocal signalled
        if not signalled:
            signalled = True
            print("\nstopping", file=sys.stderr, flush=True)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED
    except Exception:
        if signalled:  # what was in the middle of something has lost its browser, or its server
            return INTERRUPTED
        raise


@app.command(help="Captions in the browser, on this machine: the gateway with its pages, until Ctrl-C.")
def demo(
    no_screen: Annotated[
        bool, typer.Option("--headless", help="no window: Chromium speaks a clip into the pages")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="default: 8000, or another where that is taken")
    ] = None,
    livekit: Annotated[
        bool | None, typer.Option(help="with rooms of LiveKit, building its server if need be; default: if it is here")
    ] = None,
    browser: Annotated[bool, typer.Option(help="open the page")] = True,
) -> int:
    work = headless(port, livekit) if no_screen else show(port, livekit, browser)
    return asyncio.run(_until_signalled(work))


def main() -> None:
    """Run the command; what goes wrong is one sentence on standard error and exit status 1, or 2 for an option."""
    try:
        status = app(prog_name="nemostream-agent demo", standalone_mode=False)
    except (DemoError, BrowserError) as error:
        typer.echo(f"nemostream-agent demo: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        # Where typer keeps the base of its errors depends on its version.
        if (sentence := getattr(error, "format_message", None)) is None:
            raise
        typer.echo(f"nemostream-agent demo: {sentence()}", err=True)
        sys.exit(2)
    sys.exit(status)


if __name__ == "__main__":
    main()

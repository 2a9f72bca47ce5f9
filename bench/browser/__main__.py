"""From the mouth to the screen: sentences through Chromium and our pages, and when their text is painted.

python -m bench.browser                                     # 5 rounds of all pages, at 160 ms chunks
python -m bench.browser --pages solo --rounds 20            # one page
python -m bench.browser -- --endpointing-ms 400             # options of the gateway behind --

It starts an engine, the gateway, a LiveKit server and the captions agent on this machine, and for each sentence a
Chromium whose microphone is a sound file, beside one more that shows the overlay. Sentences are those of tests/clips,
each behind another length of silence, so that words begin anywhere in a chunk.

The page notes Unix time when the microphone is open; the file is played from then on, within 10 ms. A word begins and
ends with the first and the last sample above a twentieth of the clip's peak. A text is painted when the frame behind
the one in which it was put into the page begins. All clocks are this machine's. The silence that ends a segment is part
of the time to the final.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.browser import report
from bench.browser.utterance import PAGES, Stage, Utterance
from bench.engine.report import machine
from nemostream_agent.chromium import BrowserError, browsers
from nemostream_agent.demo import DemoError
from nemostream_agent.demo.services import Services
from tests.clips import TEXTS

HERE = Path(__file__).parent.parent
LEAD = 3.0
"""Seconds of silence at least; a page has connected within it."""


def pages(text: str) -> list[str]:
    found = text.split(",")
    if not set(found) <= set(PAGES):
        raise argparse.ArgumentTypeError(f"{text!r} names other pages than {', '.join(PAGES)}")
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=pages, default=list(PAGES), metavar=",".join(PAGES))
    parser.add_argument("--rounds", type=int, default=5, help="each says every sentence once on every page")
    parser.add_argument("--chunk-ms", type=int, default=160)
    parser.add_argument("--json", type=Path, default=HERE / "browser.json")
    parser.add_argument("--png", type=Path, default=HERE / "browser.png")
    parser.add_argument("gateway", nargs="*", help="behind --: options of the gateway")
    options = parser.parse_args(given)
    if options.rounds < 1:
        parser.error("at least 1 round is needed")
    return options


async def measure(options: argparse.Namespace) -> tuple[list[Utterance], list[str]]:
    """All that was heard, and what failed."""
    heard: list[Utterance] = []
    failed: list[str] = []
    leads = np.random.default_rng(options.rounds)
    gateway = ["--chunk-ms", str(options.chunk_ms), *options.gateway]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            browsers() as start,
            Services(0, "room" in options.pages, loopback=True, options=gateway) as services,
        ):
            stage = Stage(services, start, await start(), Path(folder))
            for round_ in range(options.rounds):
                for clip in TEXTS:
                    lead = LEAD + float(leads.uniform(0, options.chunk_ms / 1000))
                    for page in options.pages:
                        try:
                            found = await stage.say(page, clip, lead, len(heard))
                        except TimeoutError as error:
                            failed.append(f"{page}, {clip}: {error}")
                            continue
                        heard += found
                        print(f"round {round_ + 1}: {clip}: {report.line(found[:1])}", file=sys.stderr, flush=True)
    return heard, failed


def main(given: Sequence[str] | None = None) -> None:
    """Run the command; what goes wrong is one sentence on standard error and exit status 1."""
    options, before = arguments(given), machine()
    try:
        heard, failed = asyncio.run(measure(options))
    except (DemoError, BrowserError) as error:
        sys.exit(f"bench.browser: {error}")
    if not heard:
        sys.exit(f"bench.browser: nothing was painted: {failed[0]}")
    print(report.heading())
    for row in report.rows(heard).values():
        print(report.line(row))
    if failed:
        print(f"\n{len(failed)} sentences were not painted; the first: {failed[0]}")
    head: dict[str, Any] = {
        "command": "python -m bench.browser " + " ".join(sys.argv[1:]),
        "rounds": options.rounds,
        "chunk_ms": options.chunk_ms,
        "failed": failed,
        "machine": {**before, "load_average_after": round(os.getloadavg()[0], 2)},
    }
    report.write_json(options.json, head, heard)
    report.write_png(options.png, heard, f"{options.chunk_ms} ms chunks, {options.rounds} rounds of {len(TEXTS)}")


if __name__ == "__main__":
    main()

"""The way in of a stream: what stands where, whenever chunks are taken."""

from __future__ import annotations

import numpy as np
import pytest

from nemostream.feed import Feed
from nemostream.gate import PREROLL
from nemostream.inbox import Options, Request
from nemostream.mel import MelFilters
from nemostream.protocol import Endpointing
from nemostream.vad import WINDOW


@pytest.fixture
def filters() -> MelFilters:
    return MelFilters(np.ones((80, 257), np.float32), np.hanning(400).astype(np.float32))


def test_a_change_of_endpointing_waits_for_the_chunks_in_front_of_it(filters: MelFilters) -> None:
    """The window takes more than the next chunk; what was asked for behind it begins behind it all the same."""
    feed = Feed(filters, 2, Options(Endpointing(blank_ms=400)))
    feed.push(np.zeros(700, np.float32))
    feed.change(Options(Endpointing(blank_ms=800)))
    assert feed.reached.endpointing.blank_ms == 800, "no chunk is complete"
    feed.push(np.zeros(1000, np.float32))
    feed.change(Options(Endpointing(blank_ms=160)))
    assert feed.chunk() is not None and feed.reached.endpointing.blank_ms == 800
    feed.take_chunk()
    assert feed.chunk() is None and feed.reached.endpointing.blank_ms == 160


def test_a_request_is_open_when_no_chunk_in_front_of_it_is_complete(filters: MelFilters) -> None:
    feed = Feed(filters, 2, Options(Endpointing(blank_ms=400)))
    feed.push(np.zeros(3 * 2560, np.float32))
    feed.request(Request("flush", 7))
    feed.push(np.zeros(1000, np.float32))
    for _ in range(3):
        assert feed.chunk() is not None and feed.open_request is None
        feed.take_chunk()
    assert feed.chunk() is None and feed.open_request == Request("flush", 7)
    assert feed.heard == 3 * 2560 and feed.waiting == 1000
    feed.answered()
    assert feed.heard == 3 * 2560 + 1000 and not feed.waiting and not feed.asked


@pytest.mark.parametrize("rest", [0, 100])
@pytest.mark.parametrize("asked", ["request", "change"])
def test_what_a_gate_keeps_back_goes_in_front_of_what_comes_behind_it(
    filters: MelFilters, rest: int, asked: str
) -> None:
    """The clock jumps over what was dropped; then comes all that was not, in its order."""
    jumps: list[int] = []

    def jump(gap: Request, finalised: bool) -> bool:
        jumps.append(gap.gap)
        return finalised

    options = Options(Endpointing(), skip_silence=True)
    feed = Feed(filters, 14, options, jump)
    samples = np.arange(30 * WINDOW + rest, dtype=np.float32)
    feed.push(samples)
    while feed.window_ready:
        feed.judged(feed.take_window(), False)
    assert feed.heard == 0 and feed.skips
    if asked == "request":
        feed.request(Request("flush", 7))
    else:
        feed.change(options)
    kept = PREROLL * WINDOW + rest
    assert jumps == [len(samples) - kept] and feed.heard == kept
    assert (feed.lane.window[feed.lane.filled - kept : feed.lane.filled] == samples[-kept:]).all()
    assert (feed.open_request is not None) == (asked == "request")
    assert feed.past == len(samples) and feed.waiting == 0

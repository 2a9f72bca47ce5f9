"""The way in of a stream: what stands where, whenever chunks are taken."""

from __future__ import annotations

import numpy as np
import pytest

from nemostream.feed import Feed
from nemostream.inbox import Options, Request
from nemostream.mel import MelFilters
from nemostream.protocol import Endpointing


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

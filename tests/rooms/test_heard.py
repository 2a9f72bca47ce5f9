"""When a track's audio came, told by its frames although the loop sees them late."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemostream_agent.room_captions import Heard

FRAME = 0.01


def test_the_first_frame_says_when_the_track_began() -> None:
    heard = Heard("A", "PA_1", "TR_1")
    heard.note(100.0, FRAME)
    assert heard.since == pytest.approx(100.0 - FRAME)
    heard.note(105.0, FRAME)
    assert heard.since == pytest.approx(100.0 - FRAME), "a pause of the track is part of its time"


@given(late=st.lists(st.floats(0, 2), min_size=1, max_size=200))
def test_frames_seen_late_never_end_before_they_were_said(late: list[float]) -> None:
    heard = Heard("A", "PA_1", "TR_1")
    seen, soonest = 0.0, math.inf
    for i, by in enumerate(late):
        said = (i + 1) * FRAME
        seen = max(seen, said + by)
        soonest = min(soonest, seen - said)
        heard.note(seen, FRAME)
        assert heard.since is not None
        assert heard.since + said <= seen + 1e-6, "its caption would have a negative delay"
        # The frame that was seen soonest says best when the track began.
        assert heard.since == pytest.approx(soonest)

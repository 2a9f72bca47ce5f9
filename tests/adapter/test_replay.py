"""What is kept for a retry: the audio since the last final, at most 20 s, and flushes without an answer."""

from __future__ import annotations

import numpy as np

from livekit.plugins.nemo.replay import LIMIT, MARGIN, Ask, Replay
from nemostream.protocol import Final, FinalReason


def final(end: int, reason: FinalReason = "endpoint", flush_id: int | None = None, text: str = "a") -> Final:
    return Final(1, 1, 1, text, (), 0, end, reason, flush_id)


def filled(samples: int, chunk: int = 1000) -> Replay:
    """Every sample holds its own number."""
    replay = Replay()
    for start in range(0, samples, chunk):
        replay.append(np.arange(start, min(start + chunk, samples), dtype=np.float32))
    return replay


def heard(replay: Replay) -> list[object]:
    """Audio joined, asks where they stand."""
    out: list[object] = []
    for part in replay.again():
        if isinstance(part, Ask):
            out.append("flush")
        elif out and isinstance(out[-1], list):
            out[-1] += part.tolist()
        else:
            out.append(part.tolist())
    return out


def test_without_a_final_all_audio_is_heard_again_in_order() -> None:
    assert heard(filled(2500)) == [list(range(2500))]


def test_no_more_than_twenty_seconds_are_kept() -> None:
    replay = filled(LIMIT + 5000)
    assert replay.start == 5000
    assert heard(replay) == [list(range(5000, LIMIT + 5000))]


def test_what_a_final_covers_is_not_heard_again() -> None:
    replay = filled(10_000)
    replay.settle(final(3000), origin=0)
    assert heard(replay) == [list(range(3000 + MARGIN, 10_000))]


def test_a_final_at_the_length_limit_ends_exactly_at_a_word() -> None:
    replay = filled(10_000)
    replay.settle(final(3000, "limit"), origin=2000)
    assert heard(replay) == [list(range(5000, 10_000))]


def test_an_answered_flush_settles_all_audio_before_it() -> None:
    replay = filled(3000)
    replay.asked(7)
    replay.append(np.arange(3000, 3500, dtype=np.float32))
    replay.settle(final(1000, "flush", 7), origin=0)
    assert heard(replay) == [list(range(3000, 3500))]


def test_a_flush_without_an_answer_is_asked_again_where_it_was_asked() -> None:
    replay = filled(1500)
    replay.asked(1)
    replay.asked(2)
    replay.append(np.arange(1500, 2000, dtype=np.float32))
    replay.asked(3)
    expected = [list(range(1500)), "flush", "flush", list(range(1500, 2000)), "flush"]
    assert heard(replay) == expected
    assert heard(replay) == expected, "a second retry asks again"


def test_time_without_audio_leaves_nothing_to_hear_again() -> None:
    replay = filled(1000)
    replay.skip(500)
    assert (replay.start, heard(replay)) == (1500, [])

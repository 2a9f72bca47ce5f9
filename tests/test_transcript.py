"""Tokens into words: text, and times that go forward."""

from __future__ import annotations

from nemostream.greedy import Token
from nemostream.transcript import Segment, Timeline, Vocabulary, text_of

PIECES = ["<unk>", "▁go", "▁", "q", "ing", "."]
VOCABULARY = Vocabulary(PIECES)


def segment(*tokens: tuple[str, int], delay: int = 0) -> Segment:
    return Segment(VOCABULARY, Timeline(1280, delay), [Token(PIECES.index(p), f, 0.5) for p, f in tokens])


def test_pieces_join_into_words() -> None:
    words = segment(("▁go", 1), ("ing", 2), (".", 2), ("▁", 4), ("q", 5), ("<unk>", 7)).words()
    assert text_of(words) == "going. q ⁇"
    assert words[0].confidence == 0.5


def test_a_word_mark_without_letters_is_no_word() -> None:
    assert text_of(segment(("▁go", 1), ("▁", 4)).words()) == "go"


def test_a_word_ends_before_the_next_begins() -> None:
    """Its last piece may come in the frame of the next word's first."""
    first, second = segment(("▁go", 5), ("ing", 9), ("▁go", 9)).words()
    assert (first.start_sample, first.end_sample) == (5 * 1280, 10 * 1280)
    assert first.end_sample == second.start_sample
    assert second.end_sample == second.start_sample + 320, "and lasts a little all the same"


def test_no_word_begins_before_the_last_final_ended() -> None:
    later = segment(("▁go", 9))
    later.close(segment(("▁go", 5), ("ing", 11)).words())
    later.tokens.append(Token(1, 9, 0.5))
    assert later.words()[0].start_sample == 12 * 1280


def test_times_are_earlier_by_the_emission_delay_and_never_negative() -> None:
    (word,) = segment(("▁go", 0), ("ing", 1), delay=1920).words()
    assert (word.start_sample, word.end_sample) == (0, 2 * 1280 - 1920)


def test_gaps_move_the_clock_from_their_frame_on() -> None:
    timeline = Timeline(1280, 0)
    for frame in (10, 20, 30):
        timeline.shift(frame, 1000)
    assert [timeline.offset(f) for f in (29, 30, 99)] == [2000, 3000, 3000]
    assert timeline.total == 3000 and len(timeline.shifts) == 2

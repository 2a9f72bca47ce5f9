"""After a flush nothing that a Final gave comes again, and nothing new is held back."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nemostream.greedy import Token
from nemostream.reconcile import Reconciler
from nemostream.transcript import JOIN_FRAMES, Segment, Timeline, Vocabulary, text_of
from tests.examples import examples

PIECES = ["▁a", "▁b", "▁c", "x", "y", "z", "▁"]
VOCABULARY = Vocabulary(PIECES)
SILENCE = 4


def token(piece: str, frame: int) -> Token:
    return Token(PIECES.index(piece), frame, 1.0)


def text(tokens: list[Token]) -> str:
    return text_of(Segment(VOCABULARY, Timeline(1280, 0), list(tokens)).words())


@st.composite
def speech(draw: st.DrawFn, start: int = 0) -> list[Token]:
    """Words of one to three pieces, pieces of a word at most JOIN_FRAMES apart."""
    tokens: list[Token] = []
    frame = start
    for _ in range(draw(st.integers(0, 8))):
        frame += draw(st.integers(1, 12))
        tokens.append(token(draw(st.sampled_from(PIECES[:3])), frame))
        for _ in range(draw(st.integers(0, 2))):
            frame += draw(st.integers(0, JOIN_FRAMES))
            tokens.append(token(draw(st.sampled_from(PIECES[3:6])), frame))
    return tokens


def joined(before: list[Token], trial: list[Token], after: list[Token], flush: int) -> tuple[str, str]:
    """What the Final of a flush gives, and what the stream gives behind it."""
    reconciler = Reconciler(VOCABULARY)
    segment = reconciler.sort(before).new
    now = reconciler.fork().sort(trial)
    reconciler = reconciler.after_flush(now.given, trial, flush + SILENCE)
    return text(segment + now.new), text(reconciler.sort(after).new)


@settings(max_examples=examples(100))
@given(speech(), st.integers(0, 100))
def test_a_trial_that_was_right_changes_nothing(offline: list[Token], flush: int) -> None:
    """The uncommitted steps found just the tokens that true audio gives, of whole words: no word twice, none lost."""
    until = flush + SILENCE
    crossing = any(
        not VOCABULARY.starts_word(b, a.frame) and a.frame <= until < b.frame
        for a, b in zip(offline, offline[1:], strict=False)
    )
    assume(not crossing)
    before = [t for t in offline if t.frame < flush]
    trial = [t for t in offline if flush <= t.frame <= until]
    after = [t for t in offline if t.frame >= flush]
    final, rest = joined(before, trial, after, flush)
    assert f"{final} {rest}".split() == text(offline).split()


@settings(max_examples=examples(100))
@given(speech(), speech(), st.integers(0, 100))
def test_a_wrong_trial_changes_only_words_near_the_flush(
    offline: list[Token], guessed: list[Token], flush: int
) -> None:
    """Whatever the uncommitted steps made of it: words that begin behind the silence come whole and once."""
    until = flush + SILENCE
    before = [t for t in offline if t.frame < flush]
    after = [t for t in offline if t.frame >= flush]
    trial = [t._replace(frame=flush + t.frame % (SILENCE + 1)) for t in guessed]
    trial.sort(key=lambda t: t.frame)
    _, rest = joined(before, trial, after, flush)
    late = next((i for i, t in enumerate(after) if VOCABULARY.starts_word(t, None) and t.frame > until), len(after))
    while late < len(after) and not PIECES[after[late].id].startswith("▁"):
        late += 1
    expected = text(after[late:]).split()
    assert not expected or rest.split()[-len(expected) :] == expected


def test_another_form_of_the_word_at_the_flush_is_given_once() -> None:
    final, rest = joined([], [token("▁a", 10), token("x", 11)], [token("▁b", 10), token("y", 12), token("▁c", 20)], 12)
    assert (final, rest) == ("ax", "c")


def test_the_rest_of_a_word_that_a_final_gave_is_held_back() -> None:
    final, rest = joined([token("▁a", 9)], [], [token("x", 11), token("▁b", 14)], 10)
    assert (final, rest) == ("a", "b")


def test_a_piece_long_after_the_flush_is_a_word_of_its_own() -> None:
    final, rest = joined([token("▁a", 9)], [], [token("x", 30)], 10)
    assert (final, rest) == ("a", "x")


def test_a_word_that_the_final_did_not_hold_is_never_lost() -> None:
    """It was spoken before the flush, but the uncommitted steps missed it."""
    final, rest = joined([], [], [token("▁a", 10)], 12)
    assert (final, rest) == ("", "a")


def test_a_script_without_spaces_goes_on_behind_the_silence() -> None:
    """No piece begins a word: those long behind the flush are new all the same."""
    after = [token("x", f) for f in range(10, 40, 2)]
    final, rest = joined([token("▁a", 9)], [], after, 10)
    assert final == "a" and rest.count("x") >= sum(t.frame > 10 + SILENCE + JOIN_FRAMES for t in after)


def test_a_bare_word_mark_in_the_final_takes_no_word_away() -> None:
    final, rest = joined([], [token("▁", 11)], [token("▁a", 11), token("▁b", 12)], 10)
    assert (final, rest) == ("", "a b")


def test_a_word_before_the_given_one_is_no_other_form_of_it() -> None:
    final, rest = joined([], [token("▁c", 14)], [token("▁a", 10), token("▁c", 14)], 10)
    assert (final, rest) == ("c", "a")


def test_a_piece_that_no_final_gave_takes_no_word_away() -> None:
    """Two flushes: the second one's steps find a piece that continues a word of the first Final. It is held back, so no
    later word may be taken for it."""
    reconciler = Reconciler(VOCABULARY)
    first = [token("▁a", 5)]
    given = reconciler.fork().sort(first)
    reconciler = reconciler.after_flush(given.given, first, 5 + SILENCE)
    second = [token("▁a", 5), token("x", 6)]
    given = reconciler.fork().sort(second)
    assert text(given.new) == ""
    reconciler = reconciler.after_flush(given.given, second, 6 + SILENCE)
    assert text(reconciler.sort([token("▁a", 5), token("▁c", 7)]).new) == "c"

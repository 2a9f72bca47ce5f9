"""Tokens into words: text, times, confidence. What a segment is, and how frames become times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nemostream.greedy import Token
from nemostream.protocol import FinalReason, Word

WORD_START = "\u2581"
"""SentencePiece's mark for a space before a piece."""
UNKNOWN = "\u2047"
"""How SentencePiece shows an unknown piece."""
SHORTEST = 4
"""A word lasts a quarter of a frame (20 ms) at least."""
JOIN_FRAMES = 5
"""A piece without WORD_START this many frames after the one before (400 ms) is a word of its own."""


class Mark(NamedTuple):
    """What a piece says that is no text: why the segment ends with it, or the language that is spoken."""

    reason: FinalReason | None = None
    language: str | None = None


ENDS = {"<EOU>": Mark("eou"), "<EOB>": Mark("backchannel")}
"""Of NeMo's end-of-utterance models (nemo.collections.asr.data.audio_to_eou_label_lhotse): the end of an utterance, and
of a backchannel."""
LANGUAGE = re.compile(r"<([a-z]{2,3}-[A-Z][A-Za-z]{1,3}|[a-z]{2})>")
"""As the models with a language prompt write what they hear: <en-US>."""


class Vocabulary:
    """The pieces of a model, blank (the id after the last piece) excluded.

    Attributes:
        marks: the ids of those that are no text.
        ends: some of them end an utterance.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self.marks: dict[int, Mark] = {}
        for i, piece in enumerate(pieces):
            bare = piece.removeprefix(WORD_START)
            if bare in ENDS:
                self.marks[i] = ENDS[bare]
            elif found := LANGUAGE.fullmatch(bare):
                self.marks[i] = Mark(language=found[1])
        self.ends = any(mark.reason for mark in self.marks.values())
        self._starts = [p.startswith(WORD_START) or p == "<unk>" for p in pieces]
        self._surface = [UNKNOWN if p == "<unk>" else p.replace(WORD_START, "") for p in pieces]

    def starts_word(self, token: Token, last_frame: int | None) -> bool:
        """Whether `token` begins a word, given the frame of the token before it (None: there is none)."""
        if self._starts[token.id] or last_frame is None:
            return True
        return token.frame - last_frame > JOIN_FRAMES

    def surface(self, token: Token) -> str:
        return self._surface[token.id]


@dataclass(slots=True)
class Timeline:
    """Encoder frames to samples on the stream's clock.

    Attributes:
        frame_samples: samples per encoder frame.
        delay_samples: how long after a sound the model emits its token, measured per model.
        shifts: (frame, samples): from that frame on, time runs ahead by so many samples of gaps; the newest two.
        before: the samples of gaps before those.
    """

    frame_samples: int
    delay_samples: int
    shifts: list[tuple[int, int]] = field(default_factory=list)
    before: int = 0

    @property
    def total(self) -> int:
        """Samples of gaps so far."""
        return self.shifts[-1][1] if self.shifts else self.before

    def shift(self, frame: int, samples: int) -> None:
        """From `frame` on the clock is `samples` further ahead than it was."""
        self.shifts.append((frame, samples + self.total))
        # Tokens of the chunk under way may still lie before the newest gap, none before the one before.
        for _, total in self.shifts[:-2]:
            self.before = total
        del self.shifts[:-2]

    def offset(self, frame: int) -> int:
        """Samples of gaps before that frame."""
        return next((n for start, n in reversed(self.shifts) if frame >= start), self.before)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Start and end sample of a word whose tokens came at frames `first` to `last`."""
        start = first * self.frame_samples - self.delay_samples + self.offset(first)
        end = (last + 1) * self.frame_samples - self.delay_samples + self.offset(last)
        return max(0, start), max(0, end)


@dataclass(slots=True)
class Segment:
    """The tokens that the next Final will give, in order.

    Attributes:
        given_until: end of the last Final's last word; no word of a later one begins before it.
    """

    vocabulary: Vocabulary
    timeline: Timeline
    tokens: list[Token] = field(default_factory=list)
    given_until: int = 0

    def words(self, more: Sequence[Token] = ()) -> tuple[Word, ...]:
        """The words of the segment, with the tokens `more` behind it."""
        words: list[Word] = []
        floor = self.given_until
        for group in self._groups([*self.tokens, *more]):
            # A bare word mark that no letter followed is no word.
            if any(self.vocabulary.surface(t) for t in group):
                words.append(self._word(group, floor))
                floor = words[-1].end_sample
        return tuple(words)

    def close(self, words: Sequence[Word]) -> None:
        """These words were given as a Final."""
        self.tokens.clear()
        if words:
            self.given_until = words[-1].end_sample

    def _groups(self, tokens: Sequence[Token]) -> list[list[Token]]:
        groups: list[list[Token]] = []
        last_frame: int | None = None
        for token in tokens:
            if self.vocabulary.starts_word(token, last_frame):
                groups.append([])
            groups[-1].append(token)
            last_frame = token.frame
        return groups

    def _word(self, tokens: list[Token], floor: int) -> Word:
        start, end = self.timeline.span(tokens[0].frame, tokens[-1].frame)
        # A token that came a frame late must not make words overlap; and of two words on one frame, as RNN-T emits
        # them, the second has a time too.
        start = max(start, floor)
        end = max(end, start + self.timeline.frame_samples // SHORTEST)
        confidence = sum(t.confidence for t in tokens) / len(tokens)
        return Word("".join(self.vocabulary.surface(t) for t in tokens), start, end, confidence)


def text_of(words: Sequence[Word]) -> str:
    """The words, one space between."""
    return " ".join(w.text for w in words)

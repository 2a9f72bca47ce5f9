"""Errors in words and characters, clip by clip, and how sure a rate over many clips is.

edits = Edits.of(["turn it off"], ["turn off"])
Interval.of(edits.word_errors, edits.words, seed=0)      # rate 1/3, and where 95 % of resampled sets of clips lie
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
RESAMPLED = 2000
"""Sets of clips that an interval is made of."""
WITHIN = (2.5, 97.5)
"""Percentiles of an interval."""


def normalise(text: str) -> str:
    """Lower case, letters and digits of any script and apostrophes kept, one space between words."""
    return " ".join(re.sub(r"[^\w' ]|_", " ", text.lower()).split())


@dataclass(frozen=True, slots=True, eq=False)
class Edits:
    """Of each clip (n,): words and characters of its reference, and how many of them must be inserted, left out or
    replaced."""

    words: Counts
    word_errors: Counts
    characters: Counts
    character_errors: Counts

    @classmethod
    def of(cls, references: Sequence[str], found: Sequence[str]) -> Edits:
        """Texts are compared as `normalise` gives them."""
        columns = [_edits(normalise(a), normalise(b)) for a, b in zip(references, found, strict=True)]
        return cls(*np.array(columns, np.int64).reshape(-1, 4).T)

    def part(self, clips: Sequence[int]) -> Edits:
        """Those of some clips."""
        its = np.asarray(clips, np.intp)
        return Edits(self.words[its], self.word_errors[its], self.characters[its], self.character_errors[its])


def _edits(reference: str, found: str) -> tuple[int, int, int, int]:
    words, characters = len(reference.split()), len(reference)
    if not reference:  # jiwer takes no empty one: all that was found is too much
        return words, len(found.split()), characters, len(found)
    by_word, by_character = jiwer.process_words(reference, found), jiwer.process_characters(reference, found)
    word_errors = by_word.substitutions + by_word.deletions + by_word.insertions
    return words, word_errors, characters, by_character.substitutions + by_character.deletions + by_character.insertions


@dataclass(frozen=True, slots=True)
class Interval:
    """A rate over all clips, and the bootstrap's interval around it: clips are drawn with replacement, as many as there
    are, so an interval says what other clips of this kind might have given."""

    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, errors: Counts, wanted: Counts, seed: int) -> Interval:
        """errors.sum() / wanted.sum()."""
        draws = _draws(len(wanted), seed)
        return cls._around(_rate(errors.sum(), wanted.sum()), _rate(draws @ errors, draws @ wanted))

    @classmethod
    def of_difference(cls, errors: Counts, before: Counts, wanted: Counts, seed: int) -> Interval:
        """By how much the rate of `errors` is above that of `before`, of the same clips: each draw has the same clips
        for both, so what makes a clip hard for both does not widen the interval."""
        return cls.of(errors - before, wanted, seed)

    @classmethod
    def _around(cls, rate: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> Interval:
        low, high = np.percentile(drawn, WITHIN)
        return cls(round(float(rate), 5), round(float(low), 5), round(float(high), 5))


def _draws(clips: int, seed: int) -> Counts:
    """(RESAMPLED, clips): how often each clip is in each set."""
    rng = np.random.default_rng(seed)
    draws: Counts = rng.multinomial(clips, np.full(clips, 1 / clips), RESAMPLED)
    return draws


def _rate(errors: Counts, wanted: Counts) -> npt.NDArray[np.float64]:
    return np.asarray(errors / np.maximum(wanted, 1), np.float64)

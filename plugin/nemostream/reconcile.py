"""After a flush: which of the true tokens has the Final given already?

A flush decodes silence behind the pending audio and gives what comes out, while the stream's own state stays where it
was. When true audio goes on, its tokens pass here: those that the Final gave are held back, in order. Where the true
tokens differ from the given ones the word that spans the flush keeps the text it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from nemostream.greedy import Token
from nemostream.transcript import JOIN_FRAMES, Vocabulary

_Kind = Literal["new", "again", "instead"]
"""A true token: one that no Final gave, one that a Final gave, or part of a word that a Final gave in another form."""


class Sorted(NamedTuple):
    """True or uncommitted tokens, sorted: `new` were in no Final yet, `given` are those and the ones that were."""

    new: list[Token]
    given: list[Token]


@dataclass(slots=True)
class ReconcilerState:
    """A Reconciler as plain data."""

    given: list[Token]
    until: int
    last_frame: int | None
    word: _Kind


@dataclass(slots=True)
class Reconciler:
    """What one flush gave.

    Attributes:
        given: tokens that the Final gave from uncommitted steps and that have not come again yet, in order.
        until: matching ends behind this frame (the flush and its silence).
        last_frame: frame of the last token seen, given or true; None if there was none.
        word: what became of the word being spoken; its continuing pieces share its fate.
    """

    vocabulary: Vocabulary
    given: list[Token] = field(default_factory=list)
    until: int = -1
    last_frame: int | None = None
    word: _Kind = "new"

    def fork(self) -> Reconciler:
        """A copy for tokens that are not committed."""
        return Reconciler.load(self.vocabulary, self.export())

    def export(self) -> ReconcilerState:
        return ReconcilerState(list(self.given), self.until, self.last_frame, self.word)

    @classmethod
    def load(cls, vocabulary: Vocabulary, saved: ReconcilerState) -> Reconciler:
        return cls(vocabulary, list(saved.given), saved.until, saved.last_frame, saved.word)

    def after_flush(self, given: Sequence[Token], seen: Sequence[Token], until: int) -> Reconciler:
        """The reconciler for what follows a flush.

        Args:
            given: tokens of its uncommitted steps that this Final or one before gave.
            seen: all tokens of those steps.
            until: the frame up to which they ran.
        """
        last = seen[-1].frame if seen else self.last_frame
        return Reconciler(self.vocabulary, self._with_letters(given), until, last, "new" if last is None else "again")

    def sort(self, tokens: Sequence[Token]) -> Sorted:
        """Which of the tokens no Final has given."""
        result = Sorted([], [])
        for token in tokens:
            kind = self._kind(token)
            if kind == "new":
                result.new.append(token)
            if kind != "instead":
                result.given.append(token)
        return result

    def _kind(self, token: Token) -> _Kind:
        starts = self.vocabulary.starts_word(token, self.last_frame)
        self.last_frame = token.frame if self.last_frame is None else max(self.last_frame, token.frame)
        if starts:
            self.word = self._kind_of_word(token)
            return self.word
        if self.word == "new" or token.frame > self.until + JOIN_FRAMES:
            # Behind the silence a word that a Final gave is over, whatever its script says of spaces.
            return "new"
        if self.given and self.given[0].id == token.id:
            del self.given[0]
            return "again"
        return "instead"

    def _kind_of_word(self, token: Token) -> _Kind:
        if token.frame > self.until:
            self.given.clear()
        for i, old in enumerate(self.given):
            if old.id == token.id:
                del self.given[: i + 1]
                return "again"
        if not self.given or self.given[0].frame > token.frame + 1:
            return "new"
        # Another word stands in the Final at its place: that one stays, once.
        del self.given[0]
        while self.given and not self.vocabulary.starts_word(self.given[0], self.given[0].frame):
            del self.given[0]
        return "instead"

    def _with_letters(self, tokens: Sequence[Token]) -> list[Token]:
        """The tokens without word marks that no letter followed: they were no word of the Final."""
        kept: list[Token] = []
        for token in reversed(tokens):
            follows = kept[-1] if kept else None
            bare = not self.vocabulary.surface(token)
            if bare and (follows is None or self.vocabulary.starts_word(follows, token.frame)):
                continue
            kept.append(token)
        return kept[::-1]

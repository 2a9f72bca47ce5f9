"""After a flush: which of the true tokens has the Final given already?

A flush decodes silence behind the pending audio and gives what comes out, while the stream's own state stays where it
was. When true audio goes on, its tokens pass here: those that the Final gave are held back, in order. Where the true
tokens differ from the given ones the word that spans the flush keeps the text it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nemostream.greedy import Token
from nemostream.transcript import Vocabulary


@dataclass(slots=True)
class Reconciler:
    """What one flush gave.

    Attributes:
        given: tokens that came out of the flush's uncommitted steps and have not come again yet, in order.
        spoken_until: a word whose first frame is before this one was spoken before the flush (flush + emission delay).
        until: matching ends behind this frame (flush + silence).
        last_frame: frame of the last token seen, given or true; None if there was none.
        holding: the word being spoken was given by the Final: what is still to come of it is held back.
    """

    vocabulary: Vocabulary
    given: list[Token] = field(default_factory=list)
    spoken_until: int = 0
    until: int = -1
    last_frame: int | None = None
    holding: bool = False

    def fork(self) -> Reconciler:
        """A copy for tokens that are not committed."""
        return Reconciler(
            self.vocabulary, list(self.given), self.spoken_until, self.until, self.last_frame, self.holding
        )

    def after_flush(self, given: Sequence[Token], spoken_until: int, until: int) -> Reconciler:
        """The reconciler for what follows a flush that gave these raw tokens."""
        last = given[-1].frame if given else self.last_frame
        return Reconciler(self.vocabulary, list(given), spoken_until, until, last, last is not None)

    def filter(self, tokens: Sequence[Token]) -> list[Token]:
        """The tokens that no Final has given."""
        return [t for t in tokens if self._is_new(t)]

    def _is_new(self, token: Token) -> bool:
        starts = self.vocabulary.starts_word(token, self.last_frame)
        self.last_frame = token.frame if self.last_frame is None else max(self.last_frame, token.frame)
        if not starts:
            if self.holding and self.given and self.given[0].id == token.id:
                del self.given[0]
            return not self.holding
        self.holding = self._was_given(token)
        if not self.holding:
            self.given.clear()
        return not self.holding

    def _was_given(self, token: Token) -> bool:
        """Whether the word that `token` begins is one the Final gave, perhaps in another form."""
        if token.frame > self.until or not self.given:
            return False
        for i, old in enumerate(self.given):
            if old.id == token.id:
                del self.given[: i + 1]
                return True
        if token.frame >= self.spoken_until:
            return False
        # Another word stands in the Final at its place: that one stays, once.
        del self.given[0]
        while self.given and not self.vocabulary.starts_word(self.given[0], self.given[0].frame):
            del self.given[0]
        return True

"""Keyterms: the words of a stream that decoding favours, such as names, made tokens and a boosting tree.

tree = model.keyterms.tree(["Priya Raman", "Nemostream"])
decoder.boost(row, tree)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

from nemostream.boosting import BoostingTree
from nemostream.errors import KeytermsError
from nemostream.models.bundle import Bundle

logger = logging.getLogger("nemostream")

MAX_TERMS, MAX_CHARACTERS = 1000, 100
SHARED_TREES = 64
"""Lists of terms whose trees are kept for the next stream with the same; at 6 tokens a term 0.1 MB each, 2 MB at most,
and a row of the vocabulary."""


class Keyterms:
    """Trees for one model. Safe to use from any thread."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._shared = lru_cache(SHARED_TREES)(self._build)

    def tree(self, terms: Sequence[str]) -> BoostingTree | None:
        """The tree of these terms, the same object for the same terms in any order; None if there are none. A term that
        the model cannot spell is left out, with a warning: who detects terms in a conversation does not know its
        letters.

        Args:
            terms: 1,000 at most, of 100 characters each; in lower case where the model writes nothing else.

        Raises:
            KeytermsError: too many, one is blank or too long, or the bundle has no tokenizer.
        """
        return self._shared(self._spelt(terms)) if terms else None

    def phrases(self, terms: Sequence[str]) -> list[list[int]]:
        """The token ids of each different term that can be spelt, by its spelling. Raises what `tree` does."""
        return self._encode(self._spelt(terms))

    def _spelt(self, terms: Sequence[str]) -> tuple[str, ...]:
        """The different terms as the model writes them, sorted."""
        if isinstance(terms, str) or not all(isinstance(term, str) for term in terms):
            raise KeytermsError("keyterms: not a list of words; give each term as a string of its own.")
        if len(terms) > MAX_TERMS:
            raise KeytermsError(f"keyterms: {len(terms)} terms, {MAX_TERMS} is the most; leave out the usual words.")
        for term in terms:
            if len(term) > MAX_CHARACTERS:
                raise KeytermsError(
                    f"keyterms: {term[:20]!r}... has {len(term)} characters, {MAX_CHARACTERS} is the most; give its "
                    "rarest words alone."
                )
            if not term.strip():
                raise KeytermsError("keyterms: a term is blank; leave it out.")
        words = {" ".join(term.split()) for term in terms}
        return tuple(sorted(words if self._writes_capitals else {word.lower() for word in words}))

    @cached_property
    def _writes_capitals(self) -> bool:
        return any(piece != piece.lower() for piece in self._bundle.tokens if not piece.startswith("<"))  # <EOU>

    @cached_property
    def _tokenizer(self) -> Any:
        """sentencepiece's processor, loaded with the first terms: most streams have none."""
        name, path = self._bundle.info.name, self._bundle.tokenizer
        if path is None:
            raise KeytermsError(f"keyterms: {name} came without its tokenizer; convert the model again.")
        import sentencepiece

        try:
            tokenizer = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
            pieces = [tokenizer.id_to_piece(i) for i in range(tokenizer.get_piece_size())]
        except (OSError, RuntimeError) as error:
            raise KeytermsError(
                f"keyterms: the tokenizer of {name} cannot be read ({error}); convert the model again."
            ) from error
        # A model may write more than its tokenizer does, such as marks of an ending, but nothing between.
        if tuple(pieces) != self._bundle.tokens[: len(pieces)]:
            raise KeytermsError(f"keyterms: the tokenizer of {name} is of another model; convert the model again.")
        return tokenizer

    def _encode(self, terms: tuple[str, ...]) -> list[list[int]]:
        unknown = self._tokenizer.unk_id()
        spelt: list[list[int]] = []
        for term, ids in zip(terms, self._tokenizer.encode(list(terms)), strict=True):
            if ids and unknown not in ids:
                spelt.append(ids)
            else:
                logger.warning(
                    "keyterms: %s cannot spell %r, which is left out; write it as it is spoken",
                    self._bundle.info.name,
                    term,
                )
        return spelt

    def _build(self, terms: tuple[str, ...]) -> BoostingTree | None:
        phrases = self._encode(terms)
        return BoostingTree(phrases, self._bundle.info.vocab_size) if phrases else None

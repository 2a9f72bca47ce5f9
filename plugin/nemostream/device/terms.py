"""Keyterms on the device: the boosting trees (boosting.py) of all rows in one pair of tables, so that a row's place in
its tree is one number and a step looks everything up.

    terms = TermTables(vocabulary, states=16384, device)
    base = terms.enter(tree)           # the tree's root; 0: no tree
    scores, following = terms.scores[states], terms.following[states]
    terms.leave(tree)
"""

from __future__ import annotations

import torch

from nemostream.boosting import BoostingTree
from nemostream.encoders.tensors import RETRY_AFTER, enough_memory
from nemostream.errors import EngineFull

STATES = 16_384
"""Of all trees at once, shared ones counted once: 1,000 terms of 6 pieces take 6,000 at most. 8 bytes for each piece of
the vocabulary and state: 134 MB of 1,024 pieces."""


class TermTables:
    """Tables at addresses that never change. State 0 favours nothing and stays where it is.

    Attributes:
        scores: (states, V) float32, what a token earns.
        following: (states, V) int32, the state behind it.
    """

    def __init__(self, vocabulary: int, states: int, device: torch.device) -> None:
        """Raises EngineFull if the device has no memory for them."""
        with enough_memory("the tables of keyterms"):
            self.scores = torch.zeros((states, vocabulary), device=device)
            self.following = torch.zeros((states, vocabulary), dtype=torch.int32, device=device)
        self._held: dict[int, tuple[BoostingTree, int, int]] = {}  # by identity: tree, its root, its users

    def enter(self, tree: BoostingTree | None) -> int:
        """One user more; the tree's root in the tables.

        Raises:
            EngineFull: the trees of other streams leave no room.
        """
        if tree is None:
            return 0
        if id(tree) in self._held:
            _, base, users = self._held[id(tree)]
            self._held[id(tree)] = tree, base, users + 1
            return base
        base = self._room(tree.states)
        scores, following = tree.table()
        its = slice(base, base + tree.states)
        self.scores[its] = torch.from_numpy(scores).to(self.scores.device)
        self.following[its] = torch.from_numpy(following + base).to(self.following.device)
        self._held[id(tree)] = tree, base, 1
        return base

    def leave(self, tree: BoostingTree | None) -> None:
        """One user less; without users its place is free."""
        if tree is None:
            return
        _, base, users = self._held.pop(id(tree))
        if users > 1:
            self._held[id(tree)] = tree, base, users - 1

    def root(self, tree: BoostingTree | None) -> int:
        """Where a tree that was entered begins; 0 for none."""
        return 0 if tree is None else self._held[id(tree)][1]

    def _room(self, states: int) -> int:
        """The first gap of so many states."""
        base = 1
        for tree, begin, _ in sorted(self._held.values(), key=lambda held: held[1]):
            if begin - base >= states:
                break
            base = begin + tree.states
        if base + states > len(self.scores):
            raise EngineFull(
                f"the keyterms of other streams leave no room on the device for {states} states of {len(self.scores)}; "
                "give fewer terms, or try again later",
                RETRY_AFTER,
            )
        return base

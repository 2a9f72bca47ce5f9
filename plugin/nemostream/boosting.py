"""A boosting tree: which tokens a stream's terms favour, given the tokens it has just emitted.

    tree = BoostingTree([[5, 9, 2], [5, 7]], vocab_size=1024)
    token = int((logits[:-1] + tree.scores(state)).argmax())      # state 0: nothing was emitted yet
    state = tree.next(state, token)

The numbers are those of NeMo's GPU-PB (ContextGraph and GPUBoostingTreeModel in nemo.collections.asr.parts
.context_biasing, arXiv:2508.07014): an Aho-Corasick tree of the terms' tokens. A token that goes on with a term earns
its arc's weight; any other pays back what the unfinished term had earned, and goes on from the longest suffix that
begins a term. A finished term has nothing to pay back.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from nemostream.encoders import Floats, Indices

ALPHA = 1.0
"""Weight of the scores against the logits: NeMo's default for lists of one stream (BiasingRequestItemConfig
.boosting_model_alpha), and what its cache-aware streaming example gives (boosting_tree_alpha=1.0)."""
CONTEXT_SCORE, DEPTH_SCALING = 1.0, 2.0
"""NeMo's defaults (BoostingTreeModelConfig) for RNN-T and CTC."""


class BoostingTree:
    """Immutable, and shared by all streams with the same terms.

    State 0 is the root. States are numbered by depth, then by their tokens, so that a list of terms gives the same
    numbers in whatever order it comes, and a state's children stand behind one another: 20 bytes per state in all.
    """

    def __init__(self, phrases: Iterable[Sequence[int]], vocab_size: int, alpha: float = ALPHA) -> None:
        """`phrases`: token ids of each term, each below `vocab_size`, the blank's id."""
        self.vocab_size = vocab_size
        self._alpha = np.float32(alpha)
        self._token = array("i", [-1])  # that leads to a state
        self._fail = array("i", [0])  # the state of the longest suffix that begins a term
        self._first = array("i")  # child; the last is the one before the next state's first
        weights, earned, backoff = [0.0], [0.0], [0.0]
        through, depth = [sorted({tuple(p) for p in phrases})], [0]
        for state, here in enumerate(through):
            self._first.append(len(self._token))
            d = depth[state]
            # As NeMo does: later tokens of a term weigh more, its first one less.
            weight = CONTEXT_SCORE * DEPTH_SCALING + math.log(d + 1) if d else CONTEXT_SCORE
            for token, group in groupby((p for p in here if len(p) > d), itemgetter(d)):
                if not 0 <= token < vocab_size:
                    raise ValueError(f"token {token} is outside the vocabulary of {vocab_size}")
                terms = list(group)
                ends = len(terms[0]) == d + 1
                fail = self.next(self._fail[state], token) if state else 0
                weights.append(weight)
                earned.append(earned[state] + weight)
                backoff.append(0.0 if ends else earned[fail] - earned[-1])
                self._token.append(token)
                self._fail.append(fail)
                through.append(terms)
                depth.append(d + 1)
        self._first.append(len(self._token))
        self._tokens: npt.NDArray[np.intc] = np.frombuffer(self._token, np.intc)
        self._weights = np.array(weights, np.float32)
        self._backoff = np.array(backoff, np.float32)
        self._root = np.zeros(vocab_size, np.float32)
        self._root[self._tokens[1 : self._first[1]]] = self._weights[1 : self._first[1]]
        self._at_root: Floats = self._root * self._alpha
        self._at_root.setflags(write=False)

    @property
    def states(self) -> int:
        """How many there are, the root included."""
        return len(self._token)

    def scores(self, state: int) -> Floats:
        """(V,) float32: what to add to the logits of all tokens but the blank. To be read only."""
        if not state:
            return self._at_root  # where most tokens of a stream are spoken
        debt = np.float32(0)
        found: list[tuple[slice, np.float32]] = []
        while state:
            found.append((slice(self._first[state], self._first[state + 1]), debt))
            debt += self._backoff[state]
            state = self._fail[state]
        scores: Floats = self._root + debt
        for children, owed in reversed(found):  # of two terms that a token goes on with, the longer one counts
            scores[self._tokens[children]] = owed + self._weights[children]
        scores *= self._alpha
        return scores

    def next(self, state: int, token: int) -> int:
        """The state behind `token`."""
        while True:
            end = self._first[state + 1]
            child = bisect_left(self._token, token, self._first[state], end)
            if child < end and self._token[child] == token:
                return child
            if not state:
                return 0
            state = self._fail[state]

    def table(self) -> tuple[Floats, npt.NDArray[np.int32]]:
        """All of it: scores (S, V) float32 and next states (S, V) int32. For 1,000 terms that is tens of MB."""
        scores = np.empty((self.states, self.vocab_size), np.float32)
        following = np.zeros((self.states, self.vocab_size), np.int32)
        for state in range(self.states):
            scores[state] = self.scores(state)
            following[state] = following[self._fail[state]]  # of a smaller depth, so it is filled
            children = np.arange(self._first[state], self._first[state + 1])
            following[state, self._tokens[children]] = children
        return scores, following


Saved = tuple[npt.NDArray[np.int64], list["BoostingTree | None"]]


class BoostRows:
    """The trees of a decoder's rows and where in them each row is; false while no row has a tree."""

    def __init__(self, capacity: int) -> None:
        self.states = np.zeros(capacity, np.int64)
        self._trees: dict[int, BoostingTree] = {}

    def __bool__(self) -> bool:
        return bool(self._trees)

    def set(self, row: int, tree: BoostingTree | None, keep: bool = False) -> None:
        """Give `row` a tree, or none. It begins at the root, or with `keep` goes on at the state that it has."""
        if tree is None:
            self._trees.pop(row, None)
        else:
            self._trees[row] = tree
        if not keep or tree is None or self.states[row] >= tree.states:
            self.states[row] = 0

    def load(self, row: int, state: int) -> None:
        """A row without a tree that waits for `set(row, tree, keep=True)`."""
        self._trees.pop(row, None)
        self.states[row] = state

    def move(self, source: int, target: int) -> None:
        state = int(self.states[source])
        self.set(target, self._trees.get(source))
        self.states[target] = state

    def save(self, rows: int | Indices) -> Saved:
        return np.array(self.states[rows]), self._of(rows)

    def restore(self, rows: int | Indices, saved: Saved) -> None:
        """A row that was given another tree since `save` stays as it is: the state was one of the old tree."""
        states, trees = saved
        now = self._of(rows)
        if now != trees:
            pairs = zip(now or [None] * states.size, trees or [None] * states.size, strict=True)
            same = np.array([a is b for a, b in pairs]).reshape(states.shape)
            states = np.where(same, states, self.states[rows])
        self.states[rows] = states

    def among(self, rows: Indices) -> list[tuple[int, BoostingTree]]:
        """Which of `rows` have a tree, as positions."""
        if not self._trees:
            return []
        return [(b, self._trees[row]) for b, row in enumerate(rows.tolist()) if row in self._trees]

    def _of(self, rows: int | Indices) -> list[BoostingTree | None]:
        if not self._trees:
            return []
        return [self._trees.get(row) for row in np.atleast_1d(rows).tolist()]

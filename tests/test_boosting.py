"""Boosting trees and what greedy decoding makes of them: NeMo's numbers and tokens, in rows that know nothing of one
another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream.boosting import BoostingTree
from nemostream.encoders import Arrays, Floats
from nemostream.encoders.onnx import OnnxBackend
from nemostream.errors import SnapshotError
from nemostream.greedy import CtcDecoder, Decoder, RnntDecoder, Token
from nemostream.keyterms import Keyterms
from nemostream.models.bundle import Bundle
from tests.conftest import DATA
from tests.models.streaming import encode, log_mel
from tests.speech import utterance

ROWS, LOOKAHEAD = 24, 1
LISTS = ("near", "overlapping", "many")
ALPHAS = (1, 3, 6)
Pairs = list[list[tuple[int, int]]]

V = 6
phrase_lists = st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=6), max_size=12)


# The tree alone


@given(phrase_lists, st.lists(st.integers(0, V - 1), max_size=20))
def test_a_state_is_the_longest_suffix_that_begins_a_term(phrases: list[list[int]], emitted: list[int]) -> None:
    tree = BoostingTree(phrases, V)
    prefixes = {tuple(p[:n]) for p in phrases for n in range(len(p) + 1)} | {()}
    at: dict[int, tuple[int, ...]] = {0: ()}
    state = 0
    for i, token in enumerate(emitted):
        state = tree.next(state, token)
        said = tuple(emitted[: i + 1])
        longest = next(said[k:] for k in range(len(said) + 1) if said[k:] in prefixes)
        assert at.setdefault(state, longest) == longest
    assert tree.states == len(prefixes)


@given(phrase_lists)
def test_the_table_is_the_lazy_rows(phrases: list[list[int]]) -> None:
    tree = BoostingTree(phrases, V, alpha=1.7)
    scores, following = tree.table()
    assert (scores.dtype, following.dtype) == (np.float32, np.int32)
    assert scores.shape == following.shape == (tree.states, V)
    for state in range(tree.states):
        assert np.array_equal(scores[state], tree.scores(state))
        assert following[state].tolist() == [tree.next(state, token) for token in range(V)]
    assert (following >= 0).all() and (following < tree.states).all()


@given(phrase_lists, st.randoms(use_true_random=False))
def test_the_order_of_the_terms_does_not_matter(phrases: list[list[int]], random: np.random.RandomState) -> None:
    other = [*phrases, *phrases[:2]]
    random.shuffle(other)
    for a, b in zip(BoostingTree(phrases, V).table(), BoostingTree(other, V).table(), strict=True):
        assert np.array_equal(a, b)


@given(phrase_lists, st.lists(st.integers(0, V - 1), max_size=20))
def test_what_an_unfinished_term_earned_is_paid_back(phrases: list[list[int]], emitted: list[int]) -> None:
    """Without terms that end, nothing is left but what the open one has earned."""
    endless = [[*p, V] for p in phrases]
    tree = BoostingTree(endless, V + 1)
    state, total = 0, 0.0
    for token in emitted:
        total += float(tree.scores(state)[token])
        state = tree.next(state, token)
    depth = {0: 0}
    for parent in range(tree.states):
        for token in range(V + 1):
            depth.setdefault(tree.next(parent, token), depth[parent] + 1)
    earned = sum(1.0 if i == 0 else 2.0 + np.log(i + 1) for i in range(depth[state]))
    assert total == pytest.approx(earned, abs=1e-4)


def test_terms_share_the_way_they_have_in_common() -> None:
    tree = BoostingTree([[1, 2, 3], [1, 2], [1, 4]], V)
    assert tree.states == 5
    one = tree.next(0, 1)
    assert tree.scores(0).tolist() == [0, 1, 0, 0, 0, 0]
    second = np.float32(2 + np.log(2))
    assert tree.scores(one).tolist() == [-1, 0, second, -1, second, -1]  # 1 again: one is paid back, one is earned
    done = tree.next(one, 2)  # a term ends here and another goes on
    assert tree.scores(done).tolist() == [0, 1, 0, np.float32(2 + np.log(3)), 0, 0]


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    for token in (-1, V):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            BoostingTree([[1, token]], V)


@pytest.mark.parametrize("name", LISTS)
def test_every_number_of_the_tree_is_nemos(golden: Golden, name: str) -> None:
    scores, following = BoostingTree(golden.phrases[name], len(golden.bundle.tokens)).table()
    assert np.array_equal(following, golden.answers[f"tree.{name}.next"])
    assert np.array_equal(scores, golden.answers[f"tree.{name}.scores"])


# Decoding


@dataclass(frozen=True)
class Golden:
    """The toy's encoder frames of ROWS utterances, and what NeMo 3.0.0 says of them."""

    bundle: Bundle
    encoded: list[Floats]
    phrases: dict[str, list[list[int]]]
    answers: dict[str, np.ndarray]

    def decoder(self, name: str, rows: int = ROWS) -> Decoder:
        decoder: Decoder
        if name == "rnnt":
            decoder = RnntDecoder(self.bundle.weights, self.bundle.info.max_symbols, rows)
        else:
            decoder = CtcDecoder(self.bundle.weights, rows)
        for row in range(rows):
            decoder.reset(row)
        return decoder

    def tree(self, name: str, alpha: float = 3.0) -> BoostingTree:
        return BoostingTree(self.phrases[name], len(self.bundle.tokens), alpha)

    def tokens(self, key: str) -> Pairs:
        """(id, frame) pairs of every utterance."""
        pairs = list(zip(self.answers[f"{key}.ids"].tolist(), self.answers[f"{key}.frames"].tolist(), strict=True))
        ends = np.cumsum(self.answers[f"{key}.counts"].astype(int)).tolist()
        return [pairs[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.fixture(scope="module")
def golden(toy_bundle: Bundle) -> Golden:
    mels = [log_mel(toy_bundle, utterance(seed)[1]) for seed in range(ROWS)]
    encoded = encode(OnnxBackend(toy_bundle, "fp32", threads=1).rows(LOOKAHEAD + 1, ROWS, 0), mels)
    with np.load(DATA / "golden_toy.npz") as plain, np.load(DATA / "golden_boosting.npz") as boosted:
        answers = dict(boosted) | {key: plain[key] for key in plain if key.startswith(("rnnt", "ctc"))}
    keyterms = Keyterms(toy_bundle)
    phrases = {name: keyterms.phrases(answers[f"terms.{name}"].tolist()) for name in LISTS}
    return Golden(toy_bundle, encoded, phrases, answers)


def stream(decoder: Decoder, encoded: Sequence[Floats], rows: Sequence[int], start: int, end: int) -> list[list[Token]]:
    """Decode frames [start, end) of `encoded`, each in its row of `rows`, in chunks of 1 to 7 frames, all of them in
    each batch; frames of the tokens count from the beginning."""
    out: list[list[Token]] = [[] for _ in rows]
    at, chunk = start, 1
    while at < end:
        width = min(chunk, end - at)
        batch = np.zeros((len(rows), width, encoded[0].shape[1]), np.float32)
        frames = np.zeros(len(rows), np.intp)
        for i, values in enumerate(encoded):
            part = values[at : at + width]
            batch[i, : len(part)], frames[i] = part, len(part)
        for said, tokens in zip(out, decoder.step(np.array(rows), batch, frames), strict=True):
            said += [t._replace(frame=t.frame + at) for t in tokens]
        at, chunk = at + width, chunk % 7 + 1
    return out


def pairs(tokens: Sequence[Sequence[Token]]) -> Pairs:
    return [[(t.id, t.frame) for t in row] for row in tokens]


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_tokens_and_frames_equal_nemo(golden: Golden, name: str, alpha: int) -> None:
    """Streamed, beside rows of other terms and of none; four times, so that every utterance has every list once."""
    longest = max(map(len, golden.encoded))
    lists = [*LISTS, None]
    trees = {x: golden.tree(x, alpha) for x in LISTS}
    answers = {x: golden.tokens(f"{name}.{x}.{alpha}" if x else f"{name}.{LOOKAHEAD}") for x in lists}
    for turn in range(4):
        decoder = golden.decoder(name)
        mine = [lists[(row + turn) % 4] for row in range(ROWS)]
        for row, x in enumerate(mine):
            decoder.boost(row, trees[x] if x else None)
        found = pairs(stream(decoder, golden.encoded, range(ROWS), 0, longest))
        assert found == [answers[x][row] for row, x in enumerate(mine)]
    if alpha > 1:  # and there was something to be seen
        assert all(answers[x] != answers[None][:ROWS] for x in LISTS)


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
def test_terms_of_the_neighbours_change_no_bit(golden: Golden, name: str) -> None:
    """Confidences too, which are raw sums of the row's logits."""
    heard = []
    for neighbour in (None, "near", "many"):
        decoder = golden.decoder(name)
        for row in range(ROWS):
            decoder.boost(row, golden.tree(neighbour) if neighbour and row % 3 else None)
            if row % 6 == 0:
                decoder.boost(row, golden.tree("overlapping"))
        heard.append(stream(decoder, golden.encoded, range(ROWS), 0, 60)[::3])
    assert heard[0] == heard[1] == heard[2]


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
def test_terms_taken_away_leave_no_trace(golden: Golden, name: str) -> None:
    plain, decoder = golden.decoder(name), golden.decoder(name)
    for row in range(ROWS):
        decoder.boost(row, golden.tree("near"))
    stream(decoder, golden.encoded, range(ROWS), 0, 20)
    for row in range(ROWS):
        if row % 2:
            decoder.reset(row)
        else:
            decoder.reset(row)
            decoder.boost(row, golden.tree("near"))
            decoder.boost(row, None)
    assert stream(decoder, golden.encoded, range(ROWS), 0, 60) == stream(plain, golden.encoded, range(ROWS), 0, 60)
    assert all(decoder.export(row)["boost"] == 0 for row in range(ROWS))


MIDDLES = range(9, 33, 4)


def beginnings(golden: Golden, name: str) -> tuple[Decoder, Pairs, int]:
    """A decoder in the middle of every row's term "near", or of none; what follows until frame 60; and the middle."""
    for middle in MIDDLES:
        decoder, rest = golden.decoder(name), golden.decoder(name)
        for row in range(ROWS):
            decoder.boost(row, golden.tree("near", 6))
            rest.boost(row, golden.tree("near", 6))
        for each in (decoder, rest):
            stream(each, golden.encoded, range(ROWS), 0, middle)
        if sum(int(decoder.export(row)["boost"]) > 0 for row in range(ROWS)) > ROWS / 3:
            return decoder, pairs(stream(rest, golden.encoded, range(ROWS), middle, 60)), middle
    raise AssertionError("no row was in the middle of a term")


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
def test_an_undone_step_leaves_no_trace(golden: Golden, name: str) -> None:
    decoder, expected, middle = beginnings(golden, name)
    every = np.arange(ROWS)
    before = [decoder.export(row) for row in range(ROWS)]
    one, many = decoder.save(5), decoder.save(every)
    stream(decoder, golden.encoded[::-1], range(ROWS), 7, 31)
    assert any(decoder.export(row)["boost"] != before[row]["boost"] for row in range(ROWS))
    decoder.restore(every, many)
    stream(decoder, golden.encoded[5:6], [5], 7, 31)
    decoder.restore(5, one)
    assert [same(decoder.export(row), before[row]) for row in range(ROWS)] == [True] * ROWS
    assert pairs(stream(decoder, golden.encoded, range(ROWS), middle, 60)) == expected


def same(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
def test_terms_given_within_an_undone_step_stay(golden: Golden, name: str) -> None:
    """A stream may change its terms while a flush tries what comes next: the new tree begins at its root."""
    decoder, _, middle = beginnings(golden, name)
    row = next(row for row in range(ROWS) if decoder.export(row)["boost"] > 0)
    for rows in (row, np.arange(ROWS)):
        saved = decoder.save(rows)
        decoder.boost(row, golden.tree("many"))
        decoder.restore(rows, saved)
        assert decoder.export(row)["boost"] == 0
        decoder.boost(row, golden.tree("near", 6))
        stream(decoder, golden.encoded, range(ROWS), 0, middle)


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
def test_a_row_moves_with_its_terms(golden: Golden, name: str) -> None:
    decoder, expected, middle = beginnings(golden, name)
    for row in range(0, ROWS, 2):  # the neighbour's row is taken, and what it said is nobody's
        decoder.move(row, row + 1)
    found = pairs(stream(decoder, golden.encoded[::2], range(1, ROWS, 2), middle, 60))
    assert found == expected[::2]
    decoder.reset(0)
    decoder.move(0, 1)
    assert decoder.export(1)["boost"] == 0
    plain = golden.decoder(name)
    assert stream(decoder, golden.encoded[:1], [1], 0, 60) == stream(plain, golden.encoded[:1], [1], 0, 60)


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
def test_a_row_goes_on_elsewhere_when_it_gets_its_terms_again(golden: Golden, name: str) -> None:
    decoder, expected, middle = beginnings(golden, name)
    other = golden.decoder(name)
    for row in range(ROWS):
        exported = decoder.export(row)
        assert exported["boost"].dtype == np.int64 and exported["boost"].shape == ()
        target = ROWS - 1 - row
        other.boost(target, golden.tree("many"))
        other.check(exported)
        other.load(target, exported)
        other.boost(target, golden.tree("near", 6), keep=True)
        assert same(other.export(target), exported)
    found = pairs(stream(other, golden.encoded, range(ROWS)[::-1], middle, 60))
    assert found == expected


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
def test_a_state_that_no_tree_has_is_refused_or_forgotten(golden: Golden, name: str) -> None:
    decoder = golden.decoder(name)
    saved = decoder.export(0)
    for damaged in (np.array(-1), np.array(1.0), np.array([0]), np.array(0, np.int32)):
        with pytest.raises(SnapshotError):
            decoder.check(saved | {"boost": damaged})
    tree = golden.tree("near")
    for state, kept in ((tree.states - 1, tree.states - 1), (tree.states, 0)):
        decoder.load(0, saved | {"boost": np.array(state)})
        decoder.boost(0, tree, keep=True)
        assert decoder.export(0)["boost"] == kept


# What the scores may decide, on logits given by hand: tokens 0, 1, 2 and the blank


def open_decoder(name: str) -> Decoder:
    """A decoder whose logits are what it gets as encoder frames, if those are not negative."""
    size = 4
    eye, zeros = np.eye(size, dtype=np.float32), np.zeros((size, size), np.float32)
    if name == "ctc":
        decoder: Decoder = CtcDecoder({"ctc.weight": eye, "ctc.bias": zeros[0]}, 1)
    else:
        gates, bias = np.zeros((size, 4 * size), np.float32), np.zeros(4 * size, np.float32)
        weights = {"rnnt.embedding": zeros, "rnnt.lstm.0.w_ih": gates, "rnnt.lstm.0.w_hh": gates}
        weights |= {"rnnt.lstm.0.bias": bias, "joint.enc.weight": eye, "joint.enc.bias": zeros[0]}
        weights |= {"joint.pred.weight": zeros, "joint.pred.bias": zeros[0]}
        weights |= {"joint.out.weight": eye, "joint.out.bias": zeros[0]}
        decoder = RnntDecoder(weights, 1, 1)
    decoder.reset(0)
    return decoder


def said(decoder: Decoder, *logits: list[float]) -> list[Token]:
    return decoder.step(np.array([0]), np.array([logits], np.float32), np.array([len(logits)]))[0]


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
def test_terms_never_turn_a_blank_into_a_word(name: str) -> None:
    decoder = open_decoder(name)
    decoder.boost(0, BoostingTree([[1]], 3, alpha=100))
    assert said(decoder, [0, 4.9, 0, 5]) == []
    assert [t.id for t in said(decoder, [5, 0, 0, 4.9])] == [1]


@pytest.mark.parametrize("name", ["rnnt", "ctc"])
def test_a_boosted_token_has_its_raw_probability(name: str) -> None:
    decoder = open_decoder(name)
    decoder.boost(0, BoostingTree([[1]], 3, alpha=100))
    (token,) = said(decoder, [2, 1, 0, 0])
    assert token.id == 1
    assert token.confidence == pytest.approx(np.exp(1) / (np.exp(2) + np.exp(1) + 2))


def test_in_ctc_a_label_repeats_what_was_chosen() -> None:
    """As in NeMo: the raw label of the next frame is compared with the boosted one, which is then not to be chosen."""
    one, two = [3.0, 2.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]
    tree = BoostingTree([[1]], 3, alpha=100)
    for split in (False, True):  # in one chunk or in two
        decoder = open_decoder("ctc")
        decoder.boost(0, tree)
        steps = [[one], [two]] if split else [[one, two]]
        assert [[t.id for t in said(decoder, *step)] for step in steps] == ([[1], []] if split else [[1]])
        decoder = open_decoder("ctc")
        decoder.boost(0, tree)
        steps = [[one], [one]] if split else [[one, one]]
        assert [t.id for step in steps for t in said(decoder, *step)] == [1, 0]


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 5))
def test_no_terms_and_terms_that_weigh_nothing_are_the_same(seed: int, chunk: int) -> None:
    logits = np.abs(np.random.RandomState(seed).randn(20, 4)).tolist()
    for name in ("rnnt", "ctc"):
        plain, weightless = open_decoder(name), open_decoder(name)
        weightless.boost(0, BoostingTree([[1, 2], [0]], 3, alpha=0))
        for start in range(0, 20, chunk):
            assert said(plain, *logits[start : start + chunk]) == said(weightless, *logits[start : start + chunk])

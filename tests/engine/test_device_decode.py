"""Decoding and mel frames as a device runs them, beside the host's: token for token, on frames of a trained model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from nemostream.boosting import BoostingTree
from nemostream.device.decode import CtcTensors, RnntTensors, Said
from nemostream.device.features import LogMel
from nemostream.device.fused import MORE, iterations
from nemostream.device.terms import TermTables
from nemostream.encoders import Floats
from nemostream.encoders.onnx import OnnxBackend
from nemostream.errors import EngineFull
from nemostream.greedy import CtcDecoder, Decoder, RnntDecoder, Token
from nemostream.lanes import FRONT_FRAMES
from nemostream.mel import MelFilters
from nemostream.models.bundle import Bundle
from tests.engine.conftest import utterance
from tests.models.streaming import encode, log_mel

ROWS, FRAMES = 6, 7
CPU = torch.device("cpu")
Kind = tuple[str, float]
KINDS: list[Kind] = [("rnnt", 0.0), ("rnnt", 6.0), ("rnnt", 60.0), ("ctc", 0.0), ("ctc", 6.0)]
"""A decoder, and how much less likely than it was trained to be a blank is: then rows say more than one step's
iterations hold, and at 60 as much as a frame may."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Products this small are done before a second thread has begun, and on a busy machine each waits for the other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frames(toy_bundle: Bundle) -> Floats:
    """(ROWS, n, D): six streams, as the encoder gives them."""
    rows = OnnxBackend(toy_bundle, "fp32", 1).rows(FRAMES, ROWS, 0)
    found = encode(rows, [log_mel(toy_bundle, utterance(40 + i, 9)) for i in range(ROWS)])
    return np.stack([each[: min(map(len, found))] for each in found])


def talkative(weights: Mapping[str, Floats], less: float) -> dict[str, Floats]:
    changed = {name: np.array(array) for name, array in weights.items()}
    for name in ("joint.out.bias", "ctc.bias"):
        changed[name][-1] -= less
    return changed


class Device:
    """A decoder's tensors with the calls of Decoder, as DeviceGroup uses them."""

    def __init__(self, weights: Mapping[str, Floats], name: str, max_symbols: int) -> None:
        self.terms = TermTables(len(weights["joint.out.bias"]) - 1, 4096, CPU)
        self.rows = torch.arange(ROWS)
        if name == "rnnt":
            self.its: RnntTensors | CtcTensors = RnntTensors(weights, ROWS + 1, self.terms, CPU, max_symbols)
            self.its.room(ROWS, FRAMES)
        else:
            self.its = CtcTensors(weights, ROWS + 1, self.terms, CPU)
        self.replays = 0

    def boost(self, row: int, tree: BoostingTree | None) -> None:
        self.its.boost[row] = self.terms.enter(tree)

    def step(self, encoded: Floats, frames: np.ndarray, keep: np.ndarray) -> list[list[Token]]:
        heard, counts, kept = (torch.from_numpy(np.array(a)) for a in (encoded, frames, keep))
        out: list[list[Token]] = [[] for _ in range(ROWS)]
        if isinstance(self.its, CtcTensors):
            _take(self.its.step(self.rows, heard, counts, kept), out)
            return out
        said = self.its.step(self.rows, heard, counts, kept, iterations(FRAMES))
        _take(said, out)
        while said.open.any():
            self.replays += 1
            said = self.its.more(self.rows, counts, kept, MORE)
            _take(said, out)
        return out


def _take(said: Said, out: list[list[Token]]) -> None:
    for tokens, frames, sure in zip(said.token.tolist(), said.frame.tolist(), said.confidence.tolist(), strict=True):
        for row, token in enumerate(tokens):
            if token >= 0:
                out[row].append(Token(token, frames[row], sure[row]))


def host(weights: Mapping[str, Floats], name: str, max_symbols: int) -> Decoder:
    decoder = RnntDecoder(weights, max_symbols, ROWS) if name == "rnnt" else CtcDecoder(weights, ROWS)
    for row in range(ROWS):
        decoder.reset(row)
    return decoder


def same(left: list[list[Token]], right: list[list[Token]]) -> bool:
    if list(map(len, left)) != list(map(len, right)):
        return False
    pairs = [(a, b) for mine, theirs in zip(left, right, strict=True) for a, b in zip(mine, theirs, strict=True)]
    return all(a[:2] == b[:2] and abs(a.confidence - b.confidence) < 1e-4 for a, b in pairs)


@pytest.mark.parametrize("boosted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_host(toy_bundle: Bundle, frames: Floats, kind: Kind, boosted: bool) -> None:
    """Rows that hear fewer frames than others, or none; rows that only look; rows with terms, two of them the same."""
    name, less = kind
    weights, max_symbols = talkative(toy_bundle.weights, less), toy_bundle.info.max_symbols
    device, other = Device(weights, name, max_symbols), host(weights, name, max_symbols)
    plain = host(weights, name, max_symbols)
    rng = np.random.RandomState(5)
    vocabulary = toy_bundle.info.vocab_size
    if boosted:
        # Beside any terms, those in which a piece is said again and again: CTC must not take its last one for them.
        again = [[piece] * 3 for piece in range(vocabulary)]
        lists = [[*rng.randint(0, vocabulary, (20, 3)).tolist(), *again] for _ in range(2)]
        trees = [BoostingTree(phrases, vocabulary, alpha=8.0) for phrases in lists]
        for row, tree in ((0, trees[0]), (2, trees[1]), (3, trees[0])):
            device.boost(row, tree)
            other.boost(row, tree)
    every, total, changed = np.arange(ROWS), 0, False
    for k in range(frames.shape[1] // FRAMES):
        chunk = np.ascontiguousarray(frames[:, k * FRAMES : (k + 1) * FRAMES])
        counts = rng.randint(0, FRAMES + 1, ROWS) if k % 2 else np.full(ROWS, FRAMES)
        keep = rng.rand(ROWS) < 0.7
        saved = [decoder.save(every[~keep]) for decoder in (other, plain)]
        expected, raw = (decoder.step(every, chunk, counts) for decoder in (other, plain))
        for decoder, its in zip((other, plain), saved, strict=True):
            decoder.restore(every[~keep], its)
        found = device.step(chunk, counts, keep)
        assert same(found, expected)
        total += sum(map(len, found))
        changed |= any([t.id for t in found[row]] != [t.id for t in raw[row]] for row in (0, 2, 3))
        assert not boosted or all(same(found[row : row + 1], raw[row : row + 1]) for row in (1, 4, 5))
        for row in range(ROWS):
            exported = other.export(row)
            for part, tensor in zip(device.its.names, device.its.small, strict=True):
                if part != "boost":
                    assert np.allclose(tensor[row].numpy(), exported[part], atol=1e-4), part
    assert total > 50 and (changed or not boosted)
    if name == "rnnt":
        assert device.replays > 0 if less else boosted or device.replays == 0


def test_a_rows_tokens_do_not_depend_on_its_neighbours(toy_bundle: Bundle, frames: Floats) -> None:
    """To the bit, whatever those hear: other speech, noise, or nothing that is a number."""
    chunk = np.ascontiguousarray(frames[:, 2 * FRAMES : 3 * FRAMES])
    rng = np.random.RandomState(3)
    counts, keep = np.full(ROWS, FRAMES), np.ones(ROWS, np.bool_)
    for name in ("rnnt", "ctc"):
        found = []
        for neighbours in (chunk, 9 * rng.standard_normal(chunk.shape).astype(np.float32), np.full_like(chunk, np.nan)):
            device = Device(talkative(toy_bundle.weights, 20.0), name, toy_bundle.info.max_symbols)
            heard = neighbours.copy()
            heard[1] = chunk[1]
            its = np.where((np.arange(ROWS) == 1) | np.isfinite(heard[:, 0, 0]), counts, 0)
            found.append((device.step(heard, its, keep)[1], [t[1].clone() for t in device.its.small]))
        assert len(found[0][0]) > 2
        for tokens, state in found[1:]:
            assert tokens == found[0][0]
            assert all(torch.equal(a, b) for a, b in zip(state, found[0][1], strict=True))


def test_mel_frames_are_those_of_the_host(toy_bundle: Bundle) -> None:
    filters = MelFilters(toy_bundle.weights["mel.filters"], toy_bundle.weights["mel.window"])
    for chunk_frames in (1, 14):
        span = filters.span(8 * chunk_frames)
        loudness = np.array([[1e-4], [0.1], [1.0], [0.0]])
        windows = (np.random.RandomState(1).standard_normal((4, span)) * loudness).astype(np.float32)
        expected = filters.chunks(windows, np.arange(4), span)
        first = torch.tensor([False, True, False, False])
        found = LogMel(filters)(torch.from_numpy(windows), first).numpy()
        assert (found[1, :FRONT_FRAMES] == 0).all() and (expected[1, :FRONT_FRAMES] != 0).all()
        expected[1, :FRONT_FRAMES] = 0
        assert np.abs(found - expected).max() < 1e-3


def test_trees_share_their_place_and_leave_it() -> None:
    terms = TermTables(10, 12, CPU)
    small, other, large = (BoostingTree(p, 10) for p in ([[1, 2]], [[3, 4]], [[5, 6, 7], [6, 7, 8], [7, 8, 9]]))
    assert (small.states, other.states, large.states) == (3, 3, 10)
    assert terms.enter(None) == 0 and terms.enter(small) == terms.enter(small) == 1
    assert terms.enter(other) == 4 and terms.root(other) == 4
    scores, following = other.table()
    assert np.array_equal(terms.scores[4:7].numpy(), scores)
    assert np.array_equal(terms.following[4:7].numpy(), following + 4)
    with pytest.raises(EngineFull, match="no room on the device for 10 states of 12; give fewer terms"):
        terms.enter(large)
    terms.leave(small)
    assert terms.enter(BoostingTree([[1, 3]], 10)) == 7  # a user of the first one is left
    terms.leave(small)
    assert terms.enter(BoostingTree([[2, 3]], 10)) == 1
    terms.leave(None)
    assert not terms.scores[0].any() and not terms.following[0].any()

"""Batched greedy decoding, RNN-T and CTC: encoder frames in, tokens out, a row of state per stream.

Every product has the shape of the batch and never of the rows that happen to emit: a product's last bits depend on its
shape, and a stream's logits must not depend on what its neighbours say.

Weights are keyed as in a bundle's weights.npz (models/bundle.py). Blank is the last index, as in NeMo; it is also the
predictor's start symbol.

A row may have a boosting tree (boosting.py), used as in NeMo: whether a frame is blank, and in CTC whether it repeats,
is decided on the raw logits; only then do the tree's scores decide which token it is. So terms never turn silence into
words. A token's confidence stays the raw probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nemostream.boosting import BoostingTree, BoostRows, Saved
from nemostream.encoders import Arrays, Floats, Indices, check_row, export_row
from nemostream.errors import SnapshotError


class Token(NamedTuple):
    """A token, the encoder frame that emitted it, and the probability the model gave it."""

    id: int
    frame: int
    confidence: float


class Decoder(Protocol):
    """Greedy decoding with a row of state per stream, rows numbered as the encoder's."""

    def reset(self, row: int) -> None:
        """Make `row` that of a stream that has heard nothing and has no terms."""

    def boost(self, row: int, tree: BoostingTree | None, keep: bool = False) -> None:
        """Favour the terms of `tree` from now on, or none. `keep`: go on where the row was in them, after `load`."""

    def move(self, source: int, target: int) -> None: ...

    def save(self, rows: int | Indices) -> Any:
        """A copy of a row, or of several at once, for `restore`."""

    def restore(self, rows: int | Indices, saved: Any) -> None:
        """Undo the steps since `save`, of the same rows. The tree stays what it is now."""

    def export(self, row: int) -> Arrays:
        """A copy of `row` as plain arrays: of its tree only the state, `boost`."""

    def check(self, saved: Arrays) -> None:
        """Raises SnapshotError if `load` would not take it."""

    def load(self, row: int, saved: Arrays) -> None:
        """Make `row` the one that was exported; it has no tree until `boost(row, tree, keep=True)`."""

    def step(self, rows: Indices, encoded: Floats, frames: npt.NDArray[np.intp]) -> list[list[Token]]:
        """Decode `encoded` (B, T, D) for the B given rows, of each the first `frames[b]` frames (0: leave the row
        alone). Returns each row's tokens, frames counted from the chunk's start; updates the rows' state."""


class PredictorRows:
    """What an RNN-T decoder remembers of every stream: the predictor behind its last token, and its boosting tree."""

    def __init__(self, start: tuple[Floats, Floats, Floats], capacity: int) -> None:
        """`start`: the predictor behind nothing: its output (J,), h and c (layers, P)."""
        self._start = start
        self._g = np.zeros((capacity, *start[0].shape), np.float32)
        self._h = np.zeros((capacity, *start[1].shape), np.float32)
        self._c = np.zeros((capacity, *start[1].shape), np.float32)
        self._boosts = BoostRows(capacity)
        self._arrays: Arrays = {"g": self._g, "h": self._h, "c": self._c, "boost": self._boosts.states}

    def reset(self, row: int) -> None:
        self._g[row], self._h[row], self._c[row] = self._start
        self._boosts.load(row, 0)

    def boost(self, row: int, tree: BoostingTree | None, keep: bool = False) -> None:
        self._boosts.set(row, tree, keep)

    def move(self, source: int, target: int) -> None:
        self._g[target], self._h[target], self._c[target] = self._g[source], self._h[source], self._c[source]
        self._boosts.move(source, target)

    def save(self, rows: int | Indices) -> tuple[Floats, Floats, Floats, Saved]:
        return self._g[rows].copy(), self._h[rows].copy(), self._c[rows].copy(), self._boosts.save(rows)

    def restore(self, rows: int | Indices, saved: tuple[Floats, Floats, Floats, Saved]) -> None:
        self._g[rows], self._h[rows], self._c[rows] = saved[:3]
        self._boosts.restore(rows, saved[3])

    def export(self, row: int) -> Arrays:
        return export_row(self._arrays, row)

    def check(self, saved: Arrays) -> None:
        _check(self._arrays, saved)

    def load(self, row: int, saved: Arrays) -> None:
        self._g[row], self._h[row], self._c[row] = saved["g"], saved["h"], saved["c"]
        self._boosts.load(row, int(saved["boost"]))


class RnntDecoder(PredictorRows):
    """Greedy RNN-T: LSTM predictor, additive joint with ReLU (NeMo's RNNTDecoder and RNNTJoint)."""

    def __init__(self, weights: Mapping[str, Floats], max_symbols: int, capacity: int) -> None:
        """`max_symbols`: tokens that one frame may emit at most, as in NeMo's greedy decoding."""
        self._max_symbols = max_symbols
        layers = sum(1 for k in weights if k.startswith("rnnt.lstm.") and k.endswith(".w_hh"))
        self._lstm = [tuple(weights[f"rnnt.lstm.{i}.{p}"] for p in ("w_ih", "w_hh", "bias")) for i in range(layers)]
        # The first layer's input product is folded into the embedding table: a token's gates are one look-up.
        self._gates = weights["rnnt.embedding"] @ self._lstm[0][0] + self._lstm[0][2]
        self._enc, self._enc_bias = weights["joint.enc.weight"], weights["joint.enc.bias"]
        self._pred, self._pred_bias = weights["joint.pred.weight"], weights["joint.pred.bias"]
        self._out, self._out_bias = weights["joint.out.weight"], weights["joint.out.bias"]
        self._blank = self._out.shape[1] - 1
        hidden = self._lstm[0][1].shape[0]
        zeros = np.zeros((1, layers, hidden), np.float32)
        g, h, c = self._predict(np.array([self._blank]), zeros, zeros)
        super().__init__((g[0], h[0], c[0]), capacity)

    def step(self, rows: Indices, encoded: Floats, frames: npt.NDArray[np.intp]) -> list[list[Token]]:
        batch, chunk, width = encoded.shape
        projected = (encoded.reshape(-1, width) @ self._enc + self._enc_bias).reshape(batch, chunk, -1)
        g, h, c = self._g[rows], self._h[rows], self._c[rows]
        every = np.arange(batch)
        at = np.zeros(batch, np.intp)
        symbols = np.zeros(batch, np.intp)
        out: list[list[Token]] = [[] for _ in range(batch)]
        changed = np.zeros(batch, bool)
        boosted = self._boosts.among(rows)
        states = self._boosts.states[rows]
        while (active := at < frames).any():
            hidden = np.maximum(projected[every, np.minimum(at, chunk - 1)] + g, 0)
            logits = hidden @ self._out + self._out_bias
            best = logits.argmax(1)
            emits = active & (best != self._blank)
            if emits.any():
                for i, tree in boosted:
                    if emits[i]:
                        best[i] = (logits[i, : self._blank] + tree.scores(int(states[i]))).argmax()
                        states[i] = tree.next(int(states[i]), int(best[i]))
                which = np.flatnonzero(emits)
                for b, p in zip(which.tolist(), probability(logits[which], best[which]), strict=True):
                    out[b].append(Token(int(best[b]), int(at[b]), p))
                new = self._predict(best, h, c)
                g[which], h[which], c[which] = (x[which] for x in new)
                changed |= emits
                symbols[which] += 1
            advance = active & (~emits | (symbols >= self._max_symbols))
            at[advance] += 1
            symbols[advance] = 0
        if changed.any():
            at_rows = rows[changed]
            self._g[at_rows], self._h[at_rows], self._c[at_rows] = g[changed], h[changed], c[changed]
            self._boosts.states[at_rows] = states[changed]
        return out

    def _predict(self, tokens: npt.NDArray[np.intp], h: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
        """One LSTM step on `tokens` (B,): the projected output (B, J) and the new h, c (B, layers, P)."""
        h_new, c_new = np.empty_like(h), np.empty_like(c)
        x: Floats = np.empty(0, np.float32)
        for i, (w_ih, w_hh, bias) in enumerate(self._lstm):
            gates = (self._gates[tokens] if i == 0 else x @ w_ih + bias) + h[:, i] @ w_hh
            update, forget, cell, output = np.split(gates, 4, axis=1)
            c_new[:, i] = _sigmoid(forget) * c[:, i] + _sigmoid(update) * np.tanh(cell)
            x = h_new[:, i] = _sigmoid(output) * np.tanh(c_new[:, i])
        return x @ self._pred + self._pred_bias, h_new, c_new


class CtcDecoder:
    """Greedy CTC: a token is the first frame of a run of equal labels."""

    def __init__(self, weights: Mapping[str, Floats], capacity: int) -> None:
        self._weight, self._bias = weights["ctc.weight"], weights["ctc.bias"]
        self._blank = self._weight.shape[1] - 1
        self._previous = np.full(capacity, self._blank, np.intp)
        self._boosts = BoostRows(capacity)
        self._arrays: Arrays = {"previous": self._previous, "boost": self._boosts.states}

    def reset(self, row: int) -> None:
        self._previous[row] = self._blank
        self._boosts.load(row, 0)

    def boost(self, row: int, tree: BoostingTree | None, keep: bool = False) -> None:
        self._boosts.set(row, tree, keep)

    def move(self, source: int, target: int) -> None:
        self._previous[target] = self._previous[source]
        self._boosts.move(source, target)

    def save(self, rows: int | Indices) -> tuple[Indices, Saved]:
        return np.array(self._previous[rows]), self._boosts.save(rows)

    def restore(self, rows: int | Indices, saved: tuple[Indices, Saved]) -> None:
        self._previous[rows] = saved[0]
        self._boosts.restore(rows, saved[1])

    def export(self, row: int) -> Arrays:
        return export_row(self._arrays, row)

    def check(self, saved: Arrays) -> None:
        _check(self._arrays, saved)

    def load(self, row: int, saved: Arrays) -> None:
        self._previous[row] = saved["previous"]
        self._boosts.load(row, int(saved["boost"]))

    def step(self, rows: Indices, encoded: Floats, frames: npt.NDArray[np.intp]) -> list[list[Token]]:
        batch, chunk, width = encoded.shape
        logits = (encoded.reshape(-1, width) @ self._weight + self._bias).reshape(batch, chunk, -1)
        best = logits.argmax(2)
        for i, tree in self._boosts.among(rows):
            self._choose(tree, int(rows[i]), logits[i, : frames[i]], best[i])
        before = np.concatenate([self._previous[rows][:, None], best[:, :-1]], axis=1)
        emits = (best != self._blank) & (best != before) & (np.arange(chunk)[None] < frames[:, None])
        out: list[list[Token]] = [[] for _ in range(batch)]
        b, t = np.nonzero(emits)
        if len(b):
            labels = best[b, t]
            for i, frame, label, p in zip(
                b.tolist(), t.tolist(), labels.tolist(), probability(logits[b, t], labels), strict=True
            ):
                out[i].append(Token(label, frame, p))
        heard = np.flatnonzero(frames > 0)
        self._previous[rows[heard]] = best[heard, frames[heard] - 1]
        return out

    def _choose(self, tree: BoostingTree, row: int, logits: Floats, best: Indices) -> None:
        """Put the favoured labels into `best` (T,), the raw ones of the row's `logits` (frames heard, V); a label that
        repeats is the boosted one before it, as in NeMo, which may be another than the raw one."""
        state, last = int(self._boosts.states[row]), int(self._previous[row])
        for t in range(len(logits)):
            if best[t] != self._blank and best[t] != last:
                scores = logits[t, : self._blank] + tree.scores(state)
                if last != self._blank:
                    scores[last] = -np.inf
                best[t] = scores.argmax()
                state = tree.next(state, int(best[t]))
            last = int(best[t])
        self._boosts.states[row] = state


def _check(arrays: Arrays, saved: Arrays) -> None:
    check_row(arrays, saved)
    if saved["boost"] < 0:
        raise SnapshotError("the saved state is damaged: boost is below zero; open the stream without it")


def _sigmoid(x: Floats) -> Floats:
    y: Floats = 0.5 * np.tanh(0.5 * x) + 0.5  # the form that cannot overflow
    return y


def probability(logits: Floats, labels: npt.NDArray[np.intp]) -> list[float]:
    """Softmax of each row of `logits` (n, V) at its label."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    p = shifted[np.arange(len(labels)), labels] / shifted.sum(1)
    return [float(x) for x in p]

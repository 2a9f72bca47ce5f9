"""Batched greedy decoding, RNN-T and CTC: encoder frames in, tokens out, a row of state per stream.

Every product has the shape of the batch and never of the rows that happen to emit: a product's last bits depend on its
shape, and a stream's logits must not depend on what its neighbours say.

Weights are keyed as in a bundle's weights.npz (models/bundle.py). Blank is the last index, as in NeMo; it is also the
predictor's start symbol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nemostream.encoders import Arrays, Floats, Indices, check_row, export_row


class Token(NamedTuple):
    """A token, the encoder frame that emitted it, and the probability the model gave it."""

    id: int
    frame: int
    confidence: float


class Decoder(Protocol):
    """Greedy decoding with a row of state per stream, rows numbered as the encoder's."""

    def reset(self, row: int) -> None: ...

    def move(self, source: int, target: int) -> None: ...

    def save(self, rows: int | Indices) -> Any:
        """A copy of a row, or of several at once, for `restore`."""

    def restore(self, rows: int | Indices, saved: Any) -> None: ...

    def export(self, row: int) -> Arrays:
        """A copy of `row` as plain arrays."""

    def check(self, saved: Arrays) -> None:
        """Raises SnapshotError if `load` would not take it."""

    def load(self, row: int, saved: Arrays) -> None: ...

    def step(self, rows: Indices, encoded: Floats, frames: npt.NDArray[np.intp]) -> list[list[Token]]:
        """Decode `encoded` (B, T, D) for the B given rows, of each the first `frames[b]` frames (0: leave the row
        alone). Returns each row's tokens, frames counted from the chunk's start; updates the rows' state."""


class RnntDecoder:
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
        self._start = self._predict(np.array([self._blank]), zeros, zeros)
        self._g = np.zeros((capacity, self._pred.shape[1]), np.float32)
        self._h = np.zeros((capacity, layers, hidden), np.float32)
        self._c = np.zeros((capacity, layers, hidden), np.float32)
        self._arrays: Arrays = {"g": self._g, "h": self._h, "c": self._c}

    def reset(self, row: int) -> None:
        self.restore(row, tuple(x[0] for x in self._start))

    def move(self, source: int, target: int) -> None:
        self.restore(target, self.save(source))

    def save(self, rows: int | Indices) -> tuple[Floats, Floats, Floats]:
        return self._g[rows].copy(), self._h[rows].copy(), self._c[rows].copy()

    def restore(self, rows: int | Indices, saved: tuple[Floats, Floats, Floats]) -> None:
        self._g[rows], self._h[rows], self._c[rows] = saved

    def export(self, row: int) -> Arrays:
        return export_row(self._arrays, row)

    def check(self, saved: Arrays) -> None:
        check_row(self._arrays, saved)

    def load(self, row: int, saved: Arrays) -> None:
        self.restore(row, (saved["g"], saved["h"], saved["c"]))

    def step(self, rows: Indices, encoded: Floats, frames: npt.NDArray[np.intp]) -> list[list[Token]]:
        batch, chunk, width = encoded.shape
        projected = (encoded.reshape(-1, width) @ self._enc + self._enc_bias).reshape(batch, chunk, -1)
        g, h, c = self._g[rows], self._h[rows], self._c[rows]
        every = np.arange(batch)
        at = np.zeros(batch, np.intp)
        symbols = np.zeros(batch, np.intp)
        out: list[list[Token]] = [[] for _ in range(batch)]
        changed = np.zeros(batch, bool)
        while (active := at < frames).any():
            hidden = np.maximum(projected[every, np.minimum(at, chunk - 1)] + g, 0)
            logits = hidden @ self._out + self._out_bias
            best = logits.argmax(1)
            emits = active & (best != self._blank)
            if emits.any():
                which = np.flatnonzero(emits)
                for b, p in zip(which.tolist(), _probability(logits[which], best[which]), strict=True):
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

    def reset(self, row: int) -> None:
        self._previous[row] = self._blank

    def move(self, source: int, target: int) -> None:
        self._previous[target] = self._previous[source]

    def save(self, rows: int | Indices) -> Indices:
        return np.array(self._previous[rows])

    def restore(self, rows: int | Indices, saved: Indices) -> None:
        self._previous[rows] = saved

    def export(self, row: int) -> Arrays:
        return export_row({"previous": self._previous}, row)

    def check(self, saved: Arrays) -> None:
        check_row({"previous": self._previous}, saved)

    def load(self, row: int, saved: Arrays) -> None:
        self.restore(row, saved["previous"])

    def step(self, rows: Indices, encoded: Floats, frames: npt.NDArray[np.intp]) -> list[list[Token]]:
        batch, chunk, width = encoded.shape
        logits = (encoded.reshape(-1, width) @ self._weight + self._bias).reshape(batch, chunk, -1)
        best = logits.argmax(2)
        before = np.concatenate([self._previous[rows][:, None], best[:, :-1]], axis=1)
        emits = (best != self._blank) & (best != before) & (np.arange(chunk)[None] < frames[:, None])
        out: list[list[Token]] = [[] for _ in range(batch)]
        b, t = np.nonzero(emits)
        if len(b):
            labels = best[b, t]
            for i, frame, label, p in zip(
                b.tolist(), t.tolist(), labels.tolist(), _probability(logits[b, t], labels), strict=True
            ):
                out[i].append(Token(label, frame, p))
        heard = np.flatnonzero(frames > 0)
        self._previous[rows[heard]] = best[heard, frames[heard] - 1]
        return out


def _sigmoid(x: Floats) -> Floats:
    y: Floats = 0.5 * np.tanh(0.5 * x) + 0.5  # the form that cannot overflow
    return y


def _probability(logits: Floats, labels: npt.NDArray[np.intp]) -> list[float]:
    """Softmax of each row of `logits` (n, V) at its label."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    p = shifted[np.arange(len(labels)), labels] / shifted.sum(1)
    return [float(x) for x in p]

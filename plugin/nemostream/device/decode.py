"""Greedy decoding on the device, RNN-T and CTC: the sums and the rules of greedy.py with masks in the place of branches
and a number of iterations that is fixed, so that all of it may be captured.

An iteration of RNN-T looks at all frames of the chunk that are left at once, and takes the first one that is not blank:
a row needs as many iterations as it says tokens, and one that finds nothing more. Rows that are not through after the
iterations of a step go on in `RnntTensors.more`.

Where a row is in its keyterms is a state of TermTables; state 0 favours nothing, so rows without terms are no case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nemostream.device.terms import TermTables
from nemostream.encoders import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """Tokens of a step, (N, B) each: `token` int32, -1 where none was said; `frame` int32 of the chunk; `confidence`
    float32, the probability the model gave it. `open`: (B,) bool, rows that have more to say."""

    token: Tensor
    frame: Tensor
    confidence: Tensor
    open: Tensor


class RnntTensors:
    """What RNN-T remembers of every row, and its step. Weights are keyed as in a bundle's weights.npz.

    Attributes:
        g, h, c: (rows, J), (rows, layers, P), (rows, layers, P) float32: the predictor behind each row's last token.
        boost: (rows,) int64, where each row is in the tables of terms.
    """

    def __init__(
        self, weights: Mapping[str, Floats], rows: int, terms: TermTables, device: torch.device, max_symbols: int
    ) -> None:
        self._terms, self._max_symbols = terms, max_symbols
        given = {
            name: torch.from_numpy(np.array(array)).to(device)
            for name, array in weights.items()
            if name.startswith(("rnnt.", "joint."))
        }
        self.layers = sum(name.startswith("rnnt.lstm.") and name.endswith(".w_hh") for name in given)
        self._lstm = [
            tuple(given[f"rnnt.lstm.{i}.{part}"] for part in ("w_ih", "w_hh", "bias")) for i in range(self.layers)
        ]
        # A token's gates of the first layer are one look-up, as in greedy.RnntDecoder.
        self._gates = given["rnnt.embedding"] @ self._lstm[0][0] + self._lstm[0][2]
        self._joint = {
            part: (given[f"joint.{part}.weight"], given[f"joint.{part}.bias"]) for part in ("enc", "pred", "out")
        }
        self.blank = self._joint["out"][1].shape[0] - 1
        zeros = torch.zeros((1, self.layers, self._lstm[0][1].shape[0]), device=device)
        self._start = self._predict(torch.tensor([self.blank], device=device), zeros, zeros)
        self.g, self.h, self.c = (part.expand(rows, *part.shape[1:]).clone() for part in self._start)
        self.boost = torch.zeros(rows, dtype=torch.int64, device=device)
        # What a step has not written back yet.
        whole = self.g, self.h, self.c, self.boost, self.boost, self.boost  # the last two: frame, tokens of that frame
        self._work = [torch.zeros_like(tensor) for tensor in whole]
        self._projected = torch.zeros(0, device=device)

    @property
    def small(self) -> list[Tensor]:
        """All that a row's later steps read."""
        return [self.g, self.h, self.c, self.boost]

    @property
    def names(self) -> tuple[str, ...]:
        return "g", "h", "c", "boost"

    def room(self, rows: int, frames: int) -> None:
        """Make room for what `more` needs of a step of so many rows: at an address that does not change."""
        shape = rows, frames, self._joint["enc"][1].shape[0]
        if self._projected.shape != shape:
            self._projected = torch.zeros(shape, device=self.g.device)

    def reset(self, row: int) -> None:
        self.g[row], self.h[row], self.c[row] = (part[0] for part in self._start)
        self.boost[row] = 0

    def step(self, rows: Tensor, encoded: Tensor, frames: Tensor, keep: Tensor, iterations: int) -> Said:
        """Decode a chunk.

        Args:
            rows: (B,) int64, different ones but for fillers, whose `frames` are 0.
            encoded: (B, T, D) float32.
            frames: (B,) int64, how many of them each row takes; 0 leaves it alone.
            keep: (B,) bool, rows whose state is to be written back.
        """
        count = len(rows)
        projected = self._projected[:count]
        weight, bias = self._joint["enc"]
        projected.copy_(encoded @ weight + bias)
        for work, tensor in zip(self._work, self.small, strict=False):
            work[:count] = tensor[rows]
        self._work[4][:count] = 0
        self._work[5][:count] = 0
        return self.more(rows, frames, keep, iterations)

    def more(self, rows: Tensor, frames: Tensor, keep: Tensor, iterations: int) -> Said:
        """Go on with the last `step`, which left rows open."""
        count = len(rows)
        projected = self._projected[:count]
        chunk = projected.shape[1]
        index = torch.arange(chunk, device=rows.device)
        every = torch.arange(count, device=rows.device)
        g, h, c, boost, at, symbols = (work[:count] for work in self._work)
        weight, bias = self._joint["out"]
        tokens, places, sure = [], [], []
        for _ in range(iterations):
            logits = torch.relu(projected + g[:, None]) @ weight + bias
            speaks = (logits.argmax(2) != self.blank) & (index >= at[:, None]) & (index < frames[:, None])
            emits = speaks.any(1)
            # The first of the largest: argmax of booleans promises no order.
            frame = torch.where(speaks, index, chunk).amin(1)
            its = logits[every, frame.clamp(max=chunk - 1)]
            favoured = its[:, : self.blank] + self._terms.scores[boost]
            token = favoured.argmax(1)
            chance = torch.softmax(its, 1)[every, token]
            tokens.append(torch.where(emits, token, -1).int())
            places.append(frame.int())
            sure.append(chance)
            new_g, new_h, new_c = self._predict(token, h, c)
            g = torch.where(emits[:, None], new_g, g)
            h = torch.where(emits[:, None, None], new_h, h)
            c = torch.where(emits[:, None, None], new_c, c)
            boost = torch.where(emits, self._terms.following[boost, token].long(), boost)
            symbols = torch.where(frame == at, symbols, 0) + 1
            full = symbols >= self._max_symbols
            at = torch.where(emits, torch.where(full, frame + 1, frame), frames)
            symbols = torch.where(full, 0, symbols)
        for work, now in zip(self._work, (g, h, c, boost, at, symbols), strict=True):
            work[:count] = now
        for tensor, now in zip(self.small, (g, h, c, boost), strict=True):
            mask = keep.view(-1, *[1] * (now.dim() - 1))
            tensor.index_put_((rows,), torch.where(mask, now, tensor[rows]))
        return Said(torch.stack(tokens), torch.stack(places), torch.stack(sure), at < frames)

    def _predict(self, tokens: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One LSTM step on `tokens` (B,), as greedy.RnntDecoder._predict."""
        x = torch.empty(0)
        new_h, new_c = [], []
        for i, (w_ih, w_hh, bias) in enumerate(self._lstm):
            gates = (self._gates[tokens] if i == 0 else x @ w_ih + bias) + h[:, i] @ w_hh
            update, forget, cell, output = gates.chunk(4, 1)
            new_c.append(torch.sigmoid(forget) * c[:, i] + torch.sigmoid(update) * torch.tanh(cell))
            x = torch.sigmoid(output) * torch.tanh(new_c[-1])
            new_h.append(x)
        weight, bias = self._joint["pred"]
        return x @ weight + bias, torch.stack(new_h, 1), torch.stack(new_c, 1)


class CtcTensors:
    """What CTC remembers of every row, and its step.

    Attributes:
        previous: (rows,) int64, the label of the last frame.
        boost: (rows,) int64, where each row is in the tables of terms.
    """

    def __init__(self, weights: Mapping[str, Floats], rows: int, terms: TermTables, device: torch.device) -> None:
        self._terms = terms
        self._weight, self._bias = (
            torch.from_numpy(np.array(weights[f"ctc.{p}"])).to(device) for p in ("weight", "bias")
        )
        self.blank = len(self._bias) - 1
        self.previous = torch.full((rows,), self.blank, dtype=torch.int64, device=device)
        self.boost = torch.zeros(rows, dtype=torch.int64, device=device)

    @property
    def small(self) -> list[Tensor]:
        """All that a row's later steps read."""
        return [self.previous, self.boost]

    @property
    def names(self) -> tuple[str, ...]:
        return "previous", "boost"

    def reset(self, row: int) -> None:
        self.previous[row] = self.blank
        self.boost[row] = 0

    def step(self, rows: Tensor, encoded: Tensor, frames: Tensor, keep: Tensor) -> Said:
        """Decode a chunk; see RnntTensors.step. No row is left open."""
        logits = encoded @ self._weight + self._bias
        best = logits.argmax(2)
        last, boost = self.previous[rows], self.boost[rows]
        every = torch.arange(len(rows), device=rows.device)
        pieces = torch.arange(self.blank, device=rows.device)
        tokens, sure = [], []
        for t in range(encoded.shape[1]):
            its, raw = logits[:, t], best[:, t]
            # Whether a frame is blank or repeats is decided without terms (greedy.CtcDecoder._choose).
            emits = (raw != self.blank) & (raw != last) & (t < frames)
            scores = its[:, : self.blank] + self._terms.scores[boost]
            repeats = last[:, None] == pieces
            token = torch.where(repeats, -torch.inf, scores).argmax(1)
            tokens.append(torch.where(emits, token, -1).int())
            sure.append(torch.softmax(its, 1)[every, token])
            boost = torch.where(emits, self._terms.following[boost, token].long(), boost)
            last = torch.where(t < frames, torch.where(emits, token, raw), last)
        for tensor, now in ((self.previous, last), (self.boost, boost)):
            tensor.index_put_((rows,), torch.where(keep, now, tensor[rows]))
        where = torch.arange(len(tokens), device=rows.device, dtype=torch.int32)[:, None].expand(-1, len(rows))
        return Said(torch.stack(tokens), where, torch.stack(sure), torch.zeros_like(keep))

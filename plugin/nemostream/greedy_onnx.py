"""Greedy RNN-T over graphs: the decoder and joiner of a sherpa-onnx folder, run by onnxruntime.

    transducer = Transducer(Path("decoder.onnx"), Path("joiner.onnx"), vocab_size=1024, width=512)
    decoder = OnnxTransducer(transducer, max_symbols=10, capacity=64)

One stream and one frame at a time: NeMo's export fixes the batch of the predictor's state at 1, and a quantised joiner
takes one scale for all that it is given. So a stream's tokens cannot depend on its neighbours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemostream.boosting import BoostingTree
from nemostream.encoders import Floats, Indices
from nemostream.encoders.onnx import first_line, open_session
from nemostream.errors import BundleError
from nemostream.greedy import PredictorRows, Token, probability

_REMEDY = "copy it again, or update onnxruntime"

Predictor = tuple[Floats, Floats, Floats]
"""Of one stream: output (P,), h and c (layers, P)."""


class Transducer:
    """Predictor and joint network as NeMo exports them, each tried once.

    Attributes:
        blank: its id, the last.
        start: the predictor behind nothing.
    """

    def __init__(self, decoder: Path, joiner: Path, vocab_size: int, width: int) -> None:
        """`width`: of the encoder's frames.

        Raises:
            BundleError: onnxruntime cannot load one, or they do not belong to that encoder.
        """
        self._decoder, self._joiner = (open_session(path, 1, _REMEDY) for path in (decoder, joiner))
        inputs, joined = self._decoder.get_inputs(), [item.name for item in self._joiner.get_inputs()]
        if len(inputs) != 4 or len(self._decoder.get_outputs()) != 4:
            raise BundleError(f"{decoder}: not the LSTM predictor of a NeMo transducer; give one of NeMo's export.")
        if len(joined) != 2:
            raise BundleError(f"{joiner}: not the joint network of a NeMo transducer; give one of NeMo's export.")
        self._names, self._joined = [item.name for item in inputs], joined
        self.blank = vocab_size
        layers, _, hidden = inputs[2].shape
        zeros = np.zeros((layers, hidden), np.float32)
        try:
            self.start = self.predict(self.blank, zeros, zeros)
            found = self.logits(np.zeros(width, np.float32), self.start[0]).size
        except Exception as error:  # onnxruntime's classes share no public base
            raise BundleError(
                f"{decoder.parent}: {decoder.name} and {joiner.name} do not run behind this encoder "
                f"({first_line(error)}); copy the whole folder of one model."
            ) from error
        if found != vocab_size + 1:
            raise BundleError(
                f"{joiner}: it tells {found} tokens apart, the encoder's vocab_size is {vocab_size} and a blank; copy "
                "the whole folder of one model."
            )

    def predict(self, token: int, h: Floats, c: Floats) -> Predictor:
        """The predictor behind one more token."""
        one = np.array([1], np.int32)
        feeds = dict(zip(self._names, (np.array([[token]], np.int32), one, h[:, None], c[:, None]), strict=True))
        output, _, h_new, c_new = self._decoder.run(None, feeds)
        return output[0, :, 0], h_new[:, 0], c_new[:, 0]

    def logits(self, frame: Floats, output: Floats) -> Floats:
        """(V + 1,) of an encoder frame (D,) and the predictor's output (P,)."""
        feeds = dict(zip(self._joined, (frame[None, :, None], output[None, :, None]), strict=True))
        logits: Floats = self._joiner.run(None, feeds)[0].reshape(-1)
        return logits


class OnnxTransducer(PredictorRows):
    """Greedy RNN-T; Decoder."""

    def __init__(self, transducer: Transducer, max_symbols: int, capacity: int) -> None:
        super().__init__(transducer.start, capacity)
        self._transducer, self._max_symbols = transducer, max_symbols

    def step(self, rows: Indices, encoded: Floats, frames: npt.NDArray[np.intp]) -> list[list[Token]]:
        trees = dict(self._boosts.among(rows))
        return [self._decode(row, encoded[b, : frames[b]], trees.get(b)) for b, row in enumerate(rows.tolist())]

    def _decode(self, row: int, encoded: Floats, tree: BoostingTree | None) -> list[Token]:
        transducer, out = self._transducer, list[Token]()
        predictor: Any = self._g[row], self._h[row], self._c[row]
        state = int(self._boosts.states[row])
        for t, frame in enumerate(encoded):
            for _ in range(self._max_symbols):
                logits = transducer.logits(frame, predictor[0])
                token = int(logits.argmax())
                if token == transducer.blank:
                    break
                if tree is not None:
                    token = int((logits[: transducer.blank] + tree.scores(state)).argmax())
                    state = tree.next(state, token)
                out.append(Token(token, t, probability(logits[None], np.array([token]))[0]))
                predictor = transducer.predict(token, *predictor[1:])
        if out:
            self._g[row], self._h[row], self._c[row] = predictor
            self._boosts.states[row] = state
        return out

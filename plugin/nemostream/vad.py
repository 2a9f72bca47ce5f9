"""Voice activity, for endpoints and for the gate: Silero's network through its ONNX graph, all streams as one batch.

(endpoint,) = Vad().listen([ear], [window])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nemostream.encoders import Floats

MODEL = Path(__file__).parent / "assets" / "silero-vad" / "silero_vad_16k.onnx"
WINDOW = 512
"""Samples of a window (32 ms); Silero's network knows no other size at 16 kHz."""
CONTEXT = 64
"""Samples of the window before that the network sees again."""
SPEECH, SILENCE = 0.5, 0.35
"""Speech begins at the first probability and ends below the second (Silero's own hysteresis)."""

ROUNDS = 32
"""Windows of a stream that are listened to between two steps: about a second."""


@dataclass(slots=True)
class EarState:
    """An Ear as plain data."""

    silence_samples: int | None
    state: Floats
    context: Floats
    spoken: bool
    quiet: int


class Ear:
    """What the detector remembers of one stream."""

    __slots__ = ("_quiet", "_spoken", "context", "silence_samples", "state")

    def __init__(self, silence_samples: int | None) -> None:
        """`silence_samples`: silence behind speech that makes an endpoint; None: there are none."""
        self.silence_samples = silence_samples
        self.state: Floats = np.zeros((2, 128), np.float32)
        self.context: Floats = np.zeros(CONTEXT, np.float32)
        self._spoken = False  # since the last endpoint
        self._quiet = 0

    @property
    def speaking(self) -> bool:
        """The last window was speech."""
        return self._spoken and not self._quiet

    def export(self) -> EarState:
        return EarState(self.silence_samples, self.state, self.context, self._spoken, self._quiet)

    @classmethod
    def load(cls, saved: EarState) -> Ear:
        ear = cls(saved.silence_samples)
        ear.state, ear.context = saved.state, saved.context
        ear._spoken, ear._quiet = saved.spoken, saved.quiet
        return ear

    def judge(self, probability: float) -> bool:
        """Take the network's word for a window; True if speech has just ended."""
        if probability >= SPEECH:
            self._spoken, self._quiet = True, 0
        elif self._spoken and (probability < SILENCE or self._quiet):
            self._quiet += WINDOW
        if not self._spoken or self.silence_samples is None or self._quiet < self.silence_samples:
            return False
        self._spoken, self._quiet = False, 0
        return True


class Listener(Protocol):
    """A stream that the detector hears before the model does (feed.py)."""

    ear: Ear | None

    @property
    def window_ready(self) -> bool: ...

    def take_window(self) -> Floats: ...

    def judged(self, window: Floats, endpoint: bool) -> None: ...


class Vad:
    """The network, loaded on first use."""

    def __init__(self) -> None:
        self._session: Any = None

    def listen(self, listeners: Sequence[Listener], rounds: int = ROUNDS) -> None:
        """Judge what waits, a window of all of them at a time, `rounds` windows of each at most."""
        for _ in range(rounds):
            ready = [x for x in listeners if x.window_ready]
            if not ready:
                return
            windows = [x.take_window() for x in ready]
            ears = [x.ear for x in ready if x.ear is not None]
            for listener, window, endpoint in zip(ready, windows, self._judge(ears, windows), strict=True):
                listener.judged(window, endpoint)

    def _judge(self, ears: Sequence[Ear], windows: Sequence[Floats]) -> list[bool]:
        """One window (WINDOW,) for each ear; True where speech has just ended."""
        feeds = {
            "input": np.stack([np.concatenate([e.context, w]) for e, w in zip(ears, windows, strict=True)]),
            "state": np.stack([e.state for e in ears], axis=1),
            "sr": np.array(16_000, np.int64),
        }
        self._session = self._session or _load()
        probability, state = self._session.run(None, feeds)
        for i, ear in enumerate(ears):
            ear.state, ear.context = state[:, i], windows[i][-CONTEXT:]
        return [ear.judge(float(p)) for ear, p in zip(ears, probability[:, 0], strict=True)]


def _load() -> Any:
    from nemostream.ort import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])

"""Incremental log-mel spectrogram, equal to NeMo's offline front end whatever the size of the pushes.

    mel = MelStream(MelFilters(filters, window))
    frames = mel.push(samples)          # (n, n_mels): the frames that became final

Frame t covers the pre-emphasised samples [160t - 200, 160t + 200), zero before the stream, so it is final once
160t + 200 samples are known. Formula: NeMo's AudioToMelSpectrogramPreprocessor with normalize "NA", pad_to 0, dither 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nemostream.encoders import Floats


@dataclass(frozen=True, eq=False)
class MelFilters:
    """The constants of a front end, shared by all streams of a model.

    Attributes:
        filters: (n_mels, n_fft // 2 + 1) mel filter bank.
        window: (win,) analysis window.
    """

    filters: Floats
    window: Floats
    n_fft: int = 512
    hop: int = 160
    preemphasis: float = 0.97
    guard: float = 2.0**-24

    @property
    def n_mels(self) -> int:
        return int(self.filters.shape[0])

    @cached_property
    def columns(self) -> Floats:
        """(n_fft // 2 + 1, n_mels): the filters as the right side of a product."""
        return np.ascontiguousarray(self.filters.T)


class MelStream:
    """The front end of one stream."""

    __slots__ = ("_buffer", "_last", "_shared")

    def __init__(self, shared: MelFilters) -> None:
        self._shared = shared
        # Half a window of silence stands before the stream: NeMo centres its frames.
        self._buffer: Floats = np.zeros(len(shared.window) // 2, np.float32)
        self._last = np.float32(0.0)

    def fork(self) -> MelStream:
        """A copy that goes its own way: a flush feeds it silence and throws it away."""
        other = object.__new__(MelStream)
        other._shared, other._buffer, other._last = self._shared, self._buffer, self._last
        return other

    @property
    def tail(self) -> tuple[Floats, float]:
        """What the next frames need of the samples so far, and the last of them."""
        return self._buffer, float(self._last)

    def load(self, tail: tuple[Floats, float]) -> None:
        """Go on where that `tail` was."""
        self._buffer, self._last = tail[0], np.float32(tail[1])

    def push(self, samples: Floats) -> Floats:
        """Take float32 samples (n,); return the frames (m, n_mels) that are now final, m possibly 0."""
        s = self._shared
        if len(samples):
            previous = np.empty_like(samples)
            previous[0], previous[1:] = self._last, samples[:-1]
            self._last = samples[-1]
            self._buffer = np.concatenate([self._buffer, samples - np.float32(s.preemphasis) * previous])
        width = len(s.window)
        n = max(0, (len(self._buffer) - width) // s.hop + 1)
        if n == 0:
            return np.zeros((0, s.n_mels), np.float32)
        # Overlapping views; numpy's own sliding_window_view takes longer than the rest of a small push.
        step = self._buffer.itemsize
        frames: Floats = np.ndarray((n, width), np.float32, self._buffer, strides=(s.hop * step, step)) * s.window
        spectrum = np.fft.rfft(frames, s.n_fft, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        # One product per frame, not one for the push: a product's last bits depend on its shape, and the frames must
        # not depend on how samples were cut.
        mel: Floats = (power[:, None] @ s.columns)[:, 0]
        self._buffer = self._buffer[n * s.hop :]
        logs: Floats = np.log(mel + np.float32(s.guard))
        return logs

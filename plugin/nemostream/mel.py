"""Log-mel frames of samples, equal to NeMo's offline front end; of all rows of a step at once.

    filters = MelFilters(bank, window)
    mel = filters.chunks(windows, rows, span)   # (B, 8T, n_mels), of these rows' windows of samples
    mel = filters.whole(samples)                # (m, n_mels), of a recording

Frame t covers the pre-emphasised samples [160t - 200, 160t + 200), zero before the stream, so it is final once
160t + 200 samples are known. Formula: NeMo's AudioToMelSpectrogramPreprocessor with normalize "NA", pad_to 0, dither 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nemostream.encoders import Floats, Indices

AT_ONCE = 256
"""Frames that are computed together: more would leave the processor's cache."""


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

    @property
    def before(self) -> int:
        """Samples before its middle that a frame needs: half a window, and one more for the pre-emphasis."""
        return len(self.window) // 2 + 1

    @cached_property
    def columns(self) -> Floats:
        """(n_fft // 2 + 1, n_mels): the filters as the right side of a product."""
        return np.ascontiguousarray(self.filters.T)

    def span(self, frames: int) -> int:
        """Samples from the first that `frames` frames need to the last."""
        return (frames - 1) * self.hop + len(self.window) + 1

    def chunks(self, windows: Floats, rows: Indices, samples: int) -> Floats:
        """Frames (B, m, n_mels) of the first `samples` of these B rows of `windows`. A row's frames do not depend, to
        the bit, on the others: every product has the shape of one row."""
        at_once = max(1, AT_ONCE * self.hop // samples)
        parts = [self._frames(windows[rows[i : i + at_once], :samples]) for i in range(0, len(rows), at_once)]
        return np.concatenate(parts)

    def whole(self, samples: Floats) -> Floats:
        """All frames (m, n_mels) that the samples (n,) of a stream, from its beginning, make final."""
        silence = np.zeros(self.before, np.float32)
        if len(samples) + len(silence) < self.span(1):
            return np.zeros((0, self.n_mels), np.float32)
        frames: Floats = self._frames(np.concatenate([silence, samples])[None])[0]
        return frames

    def _frames(self, samples: Floats) -> Floats:
        """(B, n) samples to (B, m, n_mels), as many frames as they hold."""
        emphasised = samples[:, 1:] - np.float32(self.preemphasis) * samples[:, :-1]
        rows, width = len(samples), len(self.window)
        shape = rows, (samples.shape[1] - self.span(1)) // self.hop + 1, width
        step = emphasised.itemsize
        # Overlapping views; numpy's own sliding_window_view takes longer than the rest of a small step.
        strides = emphasised.strides[0], self.hop * step, step
        views: Floats = np.ndarray(shape, np.float32, emphasised, strides=strides)
        spectrum = np.fft.rfft(views * self.window, self.n_fft, axis=2)
        power = spectrum.real**2 + spectrum.imag**2
        logs: Floats = np.log(power.astype(np.float32, copy=False) @ self.columns + np.float32(self.guard))
        return logs

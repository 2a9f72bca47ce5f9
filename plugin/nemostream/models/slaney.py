"""The mel filters and the window of NeMo's front end, for models that come without: those of librosa and torch.

filters(80)     # librosa.filters.mel(sr=16000, n_fft=512, n_mels=80, norm="slaney")
window(400)     # torch.hann_window(400, periodic=False)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nemostream.encoders import Floats

SAMPLE_RATE = 16000
_HZ_PER_MEL = 200.0 / 3
_BEND_HZ, _PER_MEL_ABOVE = 1000.0, np.log(6.4) / 27
"""Slaney's Auditory Toolbox: linear up to 1 kHz, then 27 mels for each factor of 6.4."""


def filters(n_mels: int, n_fft: int = 512) -> Floats:
    """(n_mels, n_fft // 2 + 1): triangles between 0 and 8 kHz, each of area 1 over its Hz."""
    edges = _hz(np.linspace(0.0, _mel(SAMPLE_RATE / 2), n_mels + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, n_fft // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    return np.asarray(np.maximum(0.0, triangles) * 2.0 / (high - low), np.float32)


def window(width: int) -> Floats:
    """(width,): Hann's, symmetric."""
    return np.hanning(width).astype(np.float32)


def _mel(hz: float) -> float:
    """Of a frequency above the bend."""
    return float(_BEND_HZ / _HZ_PER_MEL + np.log(hz / _BEND_HZ) / _PER_MEL_ABOVE)


def _hz(mels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    bend = _BEND_HZ / _HZ_PER_MEL
    return np.where(mels < bend, mels * _HZ_PER_MEL, _BEND_HZ * np.exp(_PER_MEL_ABOVE * (mels - bend)))

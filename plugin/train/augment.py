"""One clip as another speaker, room, distance and line might have delivered it.

    wave = Augmenter(clips).apply(wave, np.random.default_rng(7))

All draws come from the generator that is passed in: the same generator makes the same sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from train.codecs import OPUS_BIT_RATES, lose_packets, mu_law, opus
from train.data import SAMPLE_RATE, Clip, Samples


@dataclass(frozen=True, slots=True)
class Augmenter:
    """`babble` are the clips that voices in the background are taken from. The other fields are how often each is
    heard, of all clips; about four in ten stay clean but for speed and level."""

    babble: Sequence[Clip]
    speed: float = 0.8
    band: float = 0.2
    room: float = 0.12
    noise: float = 0.2
    voices: float = 0.06
    line: float = 0.15
    loss: float = 0.06

    def apply(self, x: Samples, rng: np.random.Generator) -> Samples:
        """(n,) float32 -> (m,) float32, m != n where the speed changed."""
        if rng.random() < self.speed:
            x = change_speed(x, float(rng.uniform(0.8, 1.28)))
        if rng.random() < self.band:
            x = limit_band(x, rng)
        if rng.random() < self.room:
            x = reverberate(x, rng)
        level = float(np.sqrt(np.mean(x**2)))
        if rng.random() < self.noise:
            x = x + noise(len(x), rng) * level * decibel(-rng.uniform(5, 35))
        if rng.random() < self.voices:
            x = x + self.crowd(len(x), rng) * level * decibel(-rng.uniform(8, 25))
        x = x / (float(np.abs(x).max()) + 1e-6) * float(np.exp(rng.uniform(np.log(0.03), np.log(0.97))))
        if rng.random() < self.line:
            x = mu_law(x) if rng.random() < 0.35 else opus(x, int(rng.choice(OPUS_BIT_RATES)))
        if rng.random() < self.loss:
            x = lose_packets(x, float(rng.uniform(0.01, 0.06)), rng)
        return x.astype(np.float32)

    def crowd(self, n: int, rng: np.random.Generator) -> Samples:
        """One to four other people talking for n samples, level 1."""
        total = np.zeros(n, np.float32)
        for index in rng.integers(0, len(self.babble), rng.integers(1, 5)):
            other = np.resize(self.babble[index].wave(), n + SAMPLE_RATE)
            start = int(rng.integers(0, SAMPLE_RATE))
            total += other[start : start + n]
        return unit(total)


def change_speed(x: Samples, factor: float) -> Samples:
    """Faster and higher, as a tape: formants move with it, which makes another speaker."""
    out: Samples = soxr.resample(x, SAMPLE_RATE * factor, SAMPLE_RATE, quality="LQ")
    return out


def limit_band(x: Samples, rng: np.random.Generator) -> Samples:
    """A microphone: a tilt of up to 8 dB, and edges somewhere in 50..300 and 3000..8000 Hz, each half of the time."""
    size = fast_size(len(x))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32)
    gain = decibel(rng.uniform(-8, 8) * np.clip(hertz / 4000 - 1, -1, 1))
    if rng.random() < 0.5:
        gain = gain / np.sqrt(1 + (rng.uniform(50, 300) / np.maximum(hertz, 1)) ** 4)
    if rng.random() < 0.5:
        gain = gain / np.sqrt(1 + (hertz / rng.uniform(3000, 8000)) ** 8)
    return _inverse(np.fft.rfft(x, size) * gain.astype(np.float32), size)[: len(x)]


def reverberate(x: Samples, rng: np.random.Generator) -> Samples:
    """A simulated room: the direct sound, a few early reflections, and a tail of decaying noise (RT60 of 0.1 to 0.7 s)
    between 0 and 18 dB below it."""
    rt60 = float(rng.uniform(0.1, 0.7))
    n = int(SAMPLE_RATE * rt60)
    tail = rng.standard_normal(n, np.float32) * decibel(-60 * np.arange(n, dtype=np.float32) / n)
    tail[: int(rng.integers(32, 320))] = 0
    early = rng.integers(32, min(n, 800), 6)
    tail[early] += rng.choice([-1, 1], 6) * 4 * decibel(-60 * early / n)
    tail *= decibel(-rng.uniform(0, 18)) / (np.linalg.norm(tail) + 1e-9)
    tail[0] = 1
    size = fast_size(len(x) + n - 1)
    return _inverse(np.fft.rfft(x, size) * np.fft.rfft(tail, size), size)[: len(x)]


def noise(n: int, rng: np.random.Generator) -> Samples:
    """Noise of level 1 whose power falls as f^-a, a in 0..2 (white to brown), sometimes with a mains hum."""
    size = fast_size(n)
    spectrum = np.fft.rfft(rng.standard_normal(size, np.float32))
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 40).astype(np.float32)
    x = unit(_inverse(spectrum * hertz ** np.float32(-rng.uniform(0, 1)), size)[:n])
    if rng.random() < 0.15:
        x = unit(x + np.sin(2 * np.pi * rng.choice([50, 60, 100, 120]) / SAMPLE_RATE * np.arange(n)).astype(np.float32))
    return x


def fast_size(n: int) -> int:
    """The least m 2^k >= n with m of 4 to 7: a transform of n samples takes ten times as long where n is a prime."""
    power = max(0, (n - 1).bit_length() - 3)
    return next(m << power for m in (4, 5, 6, 7, 8) if m << power >= n)


def _inverse(spectrum: npt.NDArray[np.complexfloating], size: int) -> Samples:
    """(size,) samples, in the precision that they had."""
    return np.fft.irfft(spectrum, size).astype(np.float32, copy=False)


def unit(x: Samples) -> Samples:
    """Scaled to a root mean square of 1."""
    return x / (float(np.sqrt(np.mean(x**2))) + 1e-9)


def decibel(x: float | np.ndarray) -> np.ndarray:
    """An amplitude factor."""
    return np.asarray(10 ** (np.asarray(x) / 20))

"""What a line does to speech: mu-law at 8 kHz, Opus at a call's bit rate, lost packets.

Each function takes and returns float32 samples (n,) at 16 kHz, n unchanged and aligned in time with what went in.
"""

from __future__ import annotations

import numpy as np
import soxr

from train.data import SAMPLE_RATE, Samples

PACKET_SAMPLES = SAMPLE_RATE // 50
OPUS_BIT_RATES = (16_000, 20_000, 24_000, 32_000)
OPUS_RATE = 48_000
OPUS_DELAY = 312
"""Samples at 48 kHz by which libopus delays speech (its pre-skip: 6.5 ms)."""


def mu_law(x: Samples) -> Samples:
    """A telephone: 8 kHz, 300 to 3400 Hz by the resampler alone, 8 bits of G.711's companding curve (mu = 255)."""
    narrow = np.clip(soxr.resample(x, SAMPLE_RATE, 8000, quality="LQ"), -1, 1)
    bent = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
    steps = np.round(bent * 127) / 127
    back = np.sign(steps) * (256 ** np.abs(steps) - 1) / 255
    return _fit(soxr.resample(back.astype(np.float32), 8000, SAMPLE_RATE, quality="LQ"), len(x))


def opus(x: Samples, bit_rate: int) -> Samples:
    """Opus as WebRTC sends it, voice, mono, 20 ms packets, but at the least complexity, for its time."""
    import av

    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "s16"
    encoder.bit_rate = bit_rate
    encoder.options = {"application": "voip", "compression_level": "0"}
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout = OPUS_RATE, "mono"
    # Two more packets bring out what the codec still holds of the end.
    pcm = (np.clip(np.pad(x, (0, 2 * PACKET_SAMPLES + -len(x) % PACKET_SAMPLES)), -1, 1) * 32767).astype(np.int16)
    parts = []
    for start in range(0, len(pcm), PACKET_SAMPLES):
        frame = av.AudioFrame.from_ndarray(pcm[None, start : start + PACKET_SAMPLES], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        for packet in encoder.encode(frame):
            parts += [_mono(out) for out in decoder.decode(packet)]
    wide = np.concatenate(parts)[OPUS_DELAY:]
    return _fit(soxr.resample(wide, OPUS_RATE, SAMPLE_RATE, quality="LQ"), len(x))


def lose_packets(x: Samples, share: float, rng: np.random.Generator) -> Samples:
    """Lose `share` of all 20 ms packets, in bursts of one to three. The first lost packet of a burst repeats the one
    before it at half the level, as a receiver conceals it; what follows is silence."""
    x = x.copy()
    packets = len(x) // PACKET_SAMPLES
    for first in np.flatnonzero(rng.random(packets) < share / 2):
        start, burst = first * PACKET_SAMPLES, int(rng.integers(1, 4)) * PACKET_SAMPLES
        before = x[max(0, start - PACKET_SAMPLES) : start].copy()
        x[start : start + burst] = 0
        x[start : start + len(before)] = 0.5 * before[: len(x) - start]
    return x


def _mono(frame: object) -> Samples:
    samples = frame.to_ndarray()  # type: ignore[attr-defined]
    scale = 32768 if samples.dtype == np.int16 else 1
    return samples.ravel().astype(np.float32) / np.float32(scale)  # type: ignore[no-any-return]


def _fit(x: Samples, n: int) -> Samples:
    return np.pad(x[:n], (0, max(0, n - len(x)))).astype(np.float32)

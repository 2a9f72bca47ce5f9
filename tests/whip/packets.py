"""Speech as a browser would send it: packets of Opus, 48 kHz; for tests."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import soxr

from nemostream.protocol import SAMPLE_RATE, Pcm, Samples
from nemostream_agent.gateway.whip.placed import RATE

BIT_RATE = 32_000
"""What Chromium aims at for a microphone."""


def wide(samples: Samples) -> Pcm:
    """Float32 at 16 kHz -> int16 at 48 kHz."""
    pcm: Pcm = (soxr.resample(samples, SAMPLE_RATE, RATE).clip(-1, 1) * 32767).astype(np.int16)
    return pcm


def opus_packets(pcm: Pcm, frame_ms: float = 20, bit_rate: int = BIT_RATE, **options: str) -> list[bytes]:
    """`pcm`: (n,) or (n, 2) at 48 kHz; what is no whole packet at its end is left out. `options`: FFmpeg's."""
    codec = av.CodecContext.create("libopus", "w")
    codec.bit_rate, codec.format, codec.sample_rate = bit_rate, "s16", RATE
    codec.layout = layout = "mono" if pcm.ndim == 1 else "stereo"
    codec.time_base = Fraction(1, RATE)
    codec.options = {"application": "voip", "frame_duration": f"{frame_ms:g}", **options}
    packets: list[bytes] = []
    ticks = round(frame_ms * RATE / 1000)
    for at in range(0, len(pcm) - ticks + 1, ticks):
        frame = av.AudioFrame.from_ndarray(pcm[at : at + ticks].reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = RATE
        packets += [bytes(packet) for packet in codec.encode(frame)]
    return packets

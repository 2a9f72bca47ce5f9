"""Talk: what a session says, as Opus packets of 20 ms, encoded once however many sessions say it.

Mono at 32 kbit/s for voice, as a browser sends a microphone; neither DTX nor FEC.
"""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
import soxr

from nemostream.protocol import SAMPLE_RATE, Samples

OPUS_RATE = 48_000
PACKET_SECONDS = 0.02
PACKET_SAMPLES = 960
SILENCE_SECONDS = 0.5
"""Behind the last word: who ends a session has stopped talking some time before."""


@dataclass(frozen=True, slots=True)
class Talk:
    """`packets`: payloads of RTP, one each 20 ms; the last one is silence, which goes on for as long as one likes."""

    packets: tuple[bytes, ...]

    @property
    def seconds(self) -> float:
        return len(self.packets) * PACKET_SECONDS

    @classmethod
    def of(cls, samples: Samples, silence: float = SILENCE_SECONDS) -> Talk:
        """`samples`: 16 kHz mono. `silence`: seconds of it that are put behind."""
        heard = soxr.resample(np.append(samples, np.zeros(round(silence * SAMPLE_RATE), np.float32)), 16_000, OPUS_RATE)
        heard = np.append(heard, np.zeros(-len(heard) % PACKET_SAMPLES, np.float32))
        pcm = (heard.clip(-1, 1) * 32767).astype(np.int16)
        encoder = av.CodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = OPUS_RATE, "mono", "s16", 32_000
        encoder.options = {"application": "voip"}
        packets: list[bytes] = []
        for begin in range(0, len(pcm), PACKET_SAMPLES):
            frame = av.AudioFrame.from_ndarray(pcm[None, begin : begin + PACKET_SAMPLES], "s16", "mono")
            frame.sample_rate, frame.pts = OPUS_RATE, begin
            packets += [bytes(packet) for packet in encoder.encode(frame)]
        return cls(tuple(packets))

"""OpusDecoder: packets of Opus -> int16 mono samples at 16 kHz.

decoder = OpusDecoder()
samples = decoder.decode(payload)          # raises NotOpus; the decoder goes on as if it had not been asked
samples = decoder.conceal(960)             # a packet that is lost
samples = decoder.silence(960)
tail = decoder.finish()                    # behind it 48 ticks have made 16 samples exactly

`duration(payload)` tells how long a packet lasts without decoding it.
"""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np

from nemostream.protocol import SAMPLE_RATE, Pcm

from .placed import RATE

LONGEST = RATE * 120 // 1000
"""Ticks of a packet, at most (RFC 6716, 3.2.5)."""
_SILK = (480, 960, 1920, 2880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)
FRAME_TICKS = _SILK * 3 + _HYBRID * 2 + _CELT * 4
"""Of a frame, by the configuration number in a packet's first byte (RFC 6716, 3.1)."""
FADE = RATE * 60 // 1000
"""Ticks after which nothing is heard of what is made up."""


class NotOpus(Exception):
    """A payload that is no packet of Opus."""


def duration(payload: bytes) -> int:
    """Ticks of 1/48000 s.

    Raises:
        NotOpus: empty, or of no frames, or longer than a packet may be.
    """
    if not payload:
        raise NotOpus("an empty packet")
    count = (1, 2, 2, payload[1] & 0x3F if len(payload) > 1 else 0)[payload[0] & 3]
    ticks = count * FRAME_TICKS[payload[0] >> 3]
    if not 0 < ticks <= LONGEST:
        raise NotOpus(f"a packet of {ticks * 1000 / RATE:g} ms")
    return ticks


class OpusDecoder:
    """One stream's. Stereo is mixed down by libopus itself, which then decodes one channel only.

    The resampler is FFmpeg's: it gives out N/3 samples for N ticks, holds back 16 of them (1 ms), and takes the
    decoder's frames as they are. soxr is as exact, and sharper between 7 and 8 kHz, but holds back 24 to 36 ms, by
    which every caption would be later.
    """

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("libopus", "r")
        self._codec.format = "s16"
        self._codec.layout = "mono"
        self._codec.sample_rate = RATE
        self._resampler = _resampler()
        self._newest = b""

    def decode(self, payload: bytes) -> Pcm:
        """Raises NotOpus."""
        frames = self._frames(payload)
        self._newest = payload
        return _joined([part for frame in frames for part in self._resampler.resample(frame)])

    def conceal(self, ticks: int) -> Pcm:
        """In place of packets that are lost: the newest one decoded again, while it fades, and then silence.

        `ticks`: a multiple of 3.
        """
        most, faded = min(ticks, FADE), np.zeros(0, np.float64)
        while self._newest and len(faded) < most:
            again = [frame.to_ndarray()[0] for frame in self._frames(self._newest)]
            faded = np.concatenate([faded, *again])
        faded = faded[:most]
        faded *= 1 - np.arange(len(faded)) / FADE
        return self._resample(np.concatenate([faded.astype(np.int16), np.zeros(ticks - len(faded), np.int16)]))

    def silence(self, ticks: int) -> Pcm:
        """`ticks`: a multiple of 3."""
        return self._resample(np.zeros(ticks, np.int16))

    def finish(self) -> Pcm:
        """What the resampler holds back. What comes next does not continue it."""
        tail = _joined(self._resampler.resample(None))
        self._resampler = _resampler()
        return tail

    def _frames(self, payload: bytes) -> list[av.AudioFrame]:
        ticks = duration(payload)  # in front, for FFmpeg takes an empty packet for the end
        try:
            frames: list[av.AudioFrame] = self._codec.decode(av.Packet(payload))
        except av.FFmpegError as error:
            raise NotOpus(error.strerror or str(error)) from error
        if sum(frame.samples for frame in frames) != ticks:
            raise NotOpus(f"a packet that is not as long as it says, {ticks * 1000 / RATE:g} ms")
        return frames

    def _resample(self, wide: Pcm) -> Pcm:
        if not len(wide):
            return wide
        frame = av.AudioFrame.from_ndarray(wide[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = RATE
        return _joined(self._resampler.resample(frame))


def _joined(frames: Sequence[av.AudioFrame]) -> Pcm:
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _resampler() -> av.AudioResampler:
    return av.AudioResampler("s16", "mono", SAMPLE_RATE)

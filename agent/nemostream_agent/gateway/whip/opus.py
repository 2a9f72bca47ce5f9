"""OpusDecoder: packets of Opus -> int16 mono samples at 16 kHz.

decoder = OpusDecoder()
samples = decoder.decode(payload)          # raises NotOpus; the decoder goes on as if it had not been asked
samples = decoder.conceal(960)             # a packet that is lost
samples = decoder.silence(960)
tail = decoder.finish()                    # behind it 48 ticks have made 16 samples exactly

`duration(payload)` tells how long a packet lasts without decoding it.
"""

from __future__ import annotations

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
        self._last: int | None = None  # the first byte of the newest packet

    def decode(self, payload: bytes) -> Pcm:
        """Raises NotOpus."""
        samples = self._decode(payload)
        self._last = payload[0]
        return samples

    def conceal(self, ticks: int) -> Pcm:
        """What libopus makes of the sound before in place of a packet that is lost, or several; it fades out by itself.

        Ticks that are no whole frames of the newest packet's kind, or have nothing before them, become silence.
        """
        if self._last is None:
            return self.silence(ticks)
        # A frame without bytes stands for one that was lost (RFC 6716, 3.2.1 and 4.4). So libopus can be made to
        # conceal through FFmpeg, which has no call for it.
        frame = bytes([self._last & ~3])
        count, rest = divmod(ticks, FRAME_TICKS[frame[0] >> 3])
        return np.concatenate([*(self._decode(frame) for _ in range(count)), self.silence(rest)])

    def silence(self, ticks: int) -> Pcm:
        """`ticks`: a multiple of 3."""
        if not ticks:
            return np.zeros(0, np.int16)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, ticks), np.int16), format="s16", layout="mono")
        frame.sample_rate = RATE
        return self._resample(frame)

    def finish(self) -> Pcm:
        """What the resampler holds back. What comes next does not continue it."""
        tail = self._resample(None)
        self._resampler = _resampler()
        return tail

    def _decode(self, payload: bytes) -> Pcm:
        ticks = duration(payload)  # in front, for FFmpeg takes an empty packet for the end
        try:
            frames = self._codec.decode(av.Packet(payload))
        except av.FFmpegError as error:
            raise NotOpus(error.strerror or str(error)) from error
        if sum(frame.samples for frame in frames) != ticks:
            raise NotOpus(f"a packet that is not as long as it says, {ticks * 1000 / RATE:g} ms")
        return np.concatenate([self._resample(frame) for frame in frames])

    def _resample(self, frame: av.AudioFrame | None) -> Pcm:
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _resampler() -> av.AudioResampler:
    return av.AudioResampler("s16", "mono", SAMPLE_RATE)

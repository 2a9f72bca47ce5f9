"""Audio as clients send it, in pieces of any size, as the engine takes it.

decode = PcmDecoder("mulaw", 8000, 1)
samples = decode.push(data)      # mono at 16 kHz, float32 or int16; half a sample waits for its other half
tail = decode.finish()
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nemostream.audio import ToMono16k
from nemostream.errors import AudioError
from nemostream.protocol import SAMPLE_RATE, Pcm, Samples

MAX_CHANNELS = 8


def _mulaw() -> npt.NDArray[np.int16]:
    """The sample that each byte stands for (ITU-T G.711, mu-law)."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = ((((code & 0x0F).astype(np.int16) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw() -> npt.NDArray[np.int16]:
    """The sample that each byte stands for (ITU-T G.711, A-law)."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment, mantissa = ((code & 0x70) >> 4).astype(np.int16), (code & 0x0F).astype(np.int16) << 4
    magnitude = np.where(segment, (mantissa + 0x108) << np.maximum(segment - 1, 0), mantissa + 8)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_TABLES = {"mulaw": _mulaw(), "alaw": _alaw()}
_WIDTHS = {"pcm16": "<i2", "pcm32": "<i4", "float32": "<f4", "mulaw": "u1", "alaw": "u1"}
ENCODINGS = tuple(_WIDTHS)


class PcmDecoder:
    """One stream's.

    Args:
        encoding: one of ENCODINGS, little-endian.
        rate: Hz.
        channels: interleaved; they are mixed into one.

    Raises:
        AudioError: another encoding, rate or number of channels.
    """

    def __init__(self, encoding: str, rate: int, channels: int = 1) -> None:
        if encoding not in _WIDTHS:
            raise AudioError(f"an encoding of {encoding[:20]!r} is not known; there are {', '.join(ENCODINGS)}")
        if not 1 <= channels <= MAX_CHANNELS:
            raise AudioError(f"audio has 1 to {MAX_CHANNELS} channels, not {channels}")
        self._dtype, self._table, self._channels = np.dtype(_WIDTHS[encoding]), _TABLES.get(encoding), channels
        self._frame = self._dtype.itemsize * channels
        # What most clients send is what the engine takes: nothing is to be done for it.
        self._as_it_is = (encoding, rate, channels) == ("pcm16", SAMPLE_RATE, 1)
        self._mono = ToMono16k(rate)
        self._rest = b""

    def push(self, data: bytes) -> Samples | Pcm:
        """Raises AudioError where float32 samples are NaN or infinite."""
        if self._rest:
            data = self._rest + data
        whole = len(data) - len(data) % self._frame
        self._rest = data[whole:]
        block = np.frombuffer(data, self._dtype, whole // self._dtype.itemsize)
        if self._as_it_is:
            return block
        if self._table is not None:
            block = self._table[block]
        elif self._dtype == np.int32:
            block = block.astype(np.float32) / np.float32(1 << 31)
        elif self._dtype == np.float32 and not np.isfinite(block).all():
            raise AudioError("the audio holds NaN or infinite samples; send finite values in -1..1")
        return self._mono.push(block if self._channels == 1 else block.reshape(-1, self._channels))

    def finish(self) -> Samples:
        """What the resampler still holds back; half a sample is dropped."""
        return self._mono.finish()

    def close(self) -> None:
        """It holds nothing that must be given back."""

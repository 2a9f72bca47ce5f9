"""Audio at the edges: any file, any rate, mono or stereo, to what the engine takes (float32 mono, 16 kHz)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from nemostream.errors import AudioError
from nemostream.protocol import SAMPLE_RATE, Samples

if TYPE_CHECKING:
    import av

RATES = (8_000, 192_000)
"""Sample rates that make sense as speech."""


class ToMono16k:
    """Downmix and resample a running stream.

    convert = ToMono16k(rate=48_000)
    out = convert.push(block)         # int16 or float32, (n,) or (n, channels)
    tail = convert.finish()
    """

    def __init__(self, rate: int, quality: str = "HQ") -> None:
        """`quality`: soxr's name; HQ holds back about 20 ms, "QQ" nothing.

        Raises:
            AudioError: a rate that no speech has.
        """
        check_rate(rate)
        self._stream = None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality=quality)

    def push(self, block: npt.NDArray[np.int16] | npt.NDArray[np.float32]) -> Samples:
        """The samples that are known after `block`.

        Raises:
            AudioError: neither int16 nor float32, or of more than two dimensions.
        """
        mono = to_mono(block)
        if self._stream is None:
            return mono
        return cast(Samples, self._stream.resample_chunk(mono))

    def finish(self) -> Samples:
        """What the resampler still holds back."""
        empty = np.zeros(0, np.float32)
        return empty if self._stream is None else cast(Samples, self._stream.resample_chunk(empty, last=True))


def check_rate(rate: int) -> None:
    """Raises AudioError for one that no speech has."""
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"a sample rate of {rate} Hz is not supported; send {RATES[0]} to {RATES[1]} Hz")


def to_mono(block: npt.NDArray[np.int16] | npt.NDArray[np.float32]) -> Samples:
    """Float32 (n,) in -1..1 from int16 or float32, (n,) or (n, channels).

    Raises:
        AudioError: another dtype or shape.
    """
    if block.dtype not in (np.int16, np.float32):
        raise AudioError(f"audio comes as int16 or float32, not {block.dtype}")
    if block.ndim not in (1, 2):
        raise AudioError(f"audio has the shape (samples,) or (samples, channels), not {block.shape}")
    scale = np.float32(1 / 32768 if block.dtype == np.int16 else 1)
    scaled: Samples = block.astype(np.float32, copy=False)
    if scaled.ndim == 2:
        scaled = scaled.mean(axis=1, dtype=np.float32)
    return scaled * scale if scale != 1 else scaled


def read_audio(
    source: Path | BinaryIO, options: Mapping[str, str] | None = None
) -> Iterator[tuple[Samples, float | None]]:
    """Decode anything PyAV reads: blocks of samples, each with the part of the file read so far (0..1, None where the
    length is unknown). What is damaged is left out, and of a file that was cut off there is what came.

    Args:
        options: of FFmpeg's demuxers. What strangers send needs a format_whitelist and a protocol_whitelist: a
            playlist may name files of this machine.

    Raises:
        AudioError: no such file, no sound in it, or not a media file.
    """
    import av

    planar, convert, kind, seconds = av.AudioResampler(format="fltp"), None, None, 0.0
    for frame, total in _frames(source, options):
        if kind != (kind := (frame.sample_rate, frame.format.name, frame.layout.name)):
            # A file may go on otherwise than it began.
            if convert is not None:
                yield convert.finish(), min(1.0, seconds / total) if total else None
            planar, convert = av.AudioResampler(format="fltp"), ToMono16k(frame.sample_rate)
        assert convert is not None
        for part in planar.resample(frame):
            seconds += part.samples / part.sample_rate
            yield convert.push(cast(Samples, part.to_ndarray()).T), min(1.0, seconds / total) if total else None
    if convert is not None:
        yield convert.finish(), 1.0


def elapsed(source: Path | BinaryIO, options: Mapping[str, str] | None = None) -> Iterator[float]:
    """Seconds of audio up to the end of each frame, by decoding and nothing else: what headers say of a file's length
    need not be true. Arguments and errors are those of `read_audio`."""
    seconds = 0.0
    for frame, _ in _frames(source, options):
        check_rate(frame.sample_rate)
        seconds += frame.samples / frame.sample_rate
        yield seconds


def _frames(source: Path | BinaryIO, options: Mapping[str, str] | None) -> Iterator[tuple[av.AudioFrame, float | None]]:
    """The frames of the first audio track, with the seconds that the file says it has."""
    import av

    name = str(source) if isinstance(source, Path) else "the input"
    heard, damaged = False, None
    try:
        opened = av.open(str(source) if isinstance(source, Path) else source, mode="r", options=dict(options or {}))
        with closing(opened) as container:
            if not container.streams.audio:
                raise AudioError(f"{name} has no audio track")
            if container.streams.audio[0].codec_context is None:
                raise AudioError(f"{name} has an audio track in a coding that cannot be decoded")
            track = container.streams.audio[0]
            total = container.duration / 1e6 if container.duration else None
            packets = container.demux(track)
            while True:
                try:
                    frames = next(packets).decode()
                except StopIteration:
                    break
                except av.InvalidDataError as error:
                    damaged = error
                    continue
                for frame in frames:
                    heard = True
                    yield frame, total
        if damaged is not None and not heard:
            raise damaged
    except FileNotFoundError as error:
        raise AudioError(f"{name} does not exist") from error
    except IsADirectoryError as error:
        raise AudioError(f"{name} is a folder, not a sound file") from error
    except (av.FFmpegError, PermissionError) as error:
        raise AudioError(f"{name} cannot be read as audio: {error.strerror or error}") from error

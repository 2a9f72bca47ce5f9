"""Sound files made on the fly, of all kinds that people upload, and of some that they should not."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import av
import numpy as np

from nemostream.protocol import SAMPLE_RATE, Pcm, Samples
from tests.clips import clip

NAMES = ("music", "refund", "tonight", "tomorrow", "monday")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a file is made: FFmpeg's names of container and coding, rate in Hz and channels; `video`: with pictures."""

    container: str
    codec: str
    rate: int
    channels: int = 1
    video: bool = False


KINDS = {
    "WAV 8 kHz": Kind("wav", "pcm_s16le", 8_000),
    "WAV 44.1 kHz stereo": Kind("wav", "pcm_s16le", 44_100, 2),
    "FLAC": Kind("flac", "flac", 48_000),
    "MP3": Kind("mp3", "libmp3lame", 44_100, 2),
    "Ogg Opus": Kind("ogg", "libopus", 48_000),
    "WebM": Kind("webm", "libopus", 48_000, 2),
    "M4A": Kind("ipod", "aac", 44_100),
    "MP4 with pictures": Kind("mp4", "aac", 48_000, 2, video=True),
}


def speech(seconds: float = 0.0) -> Samples:
    """All clips with pauses between them; again and again until there are so many seconds."""
    pause = np.zeros(SAMPLE_RATE, np.float32)
    once = np.concatenate([part for name in NAMES for part in (clip(name), pause)])
    return np.tile(once, max(1, -int(-seconds * SAMPLE_RATE // len(once))))


def encoded(samples: Samples, kind: Kind) -> bytes:
    """A file."""
    out, layout = io.BytesIO(), "stereo" if kind.channels == 2 else "mono"
    with av.open(out, "w", format=kind.container) as container:
        track = container.add_stream(kind.codec, rate=kind.rate)
        track.layout = layout
        if kind.video:
            _film(container, len(samples) / SAMPLE_RATE)
        frame = av.AudioFrame.from_ndarray(_pcm(samples)[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        convert = av.AudioResampler(track.format.name, layout, kind.rate)
        for part in (*convert.resample(frame), *convert.resample(None), None):
            container.mux(track.encode(part))
    return out.getvalue()


def _film(container: av.container.OutputContainer, seconds: float) -> None:
    track = container.add_stream("mpeg4", rate=5)
    track.width = track.height = 64
    for _ in range(int(seconds * 5)):
        container.mux(track.encode(av.VideoFrame(64, 64, "yuv420p")))
    container.mux(track.encode(None))


def wav(samples: Samples, claimed: int | None = None) -> bytes:
    """16 kHz mono; `claimed`: bytes that its header says there are."""
    data = _pcm(samples).tobytes()
    size = len(data) if claimed is None else claimed
    head = struct.pack("<4sI4s", b"RIFF", min(size + 36, 0xFFFFFFFF), b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    return head + form + struct.pack("<4sI", b"data", size) + data


def silence(hours: float) -> bytes:
    """As MP3, 1 kB a second: the same frames again and again."""
    piece = encoded(np.zeros(36 * SAMPLE_RATE, np.float32), Kind("mp3", "libmp3lame", 8_000))
    return piece * round(hours * 100)


def bomb(hours: float) -> bytes:
    """As FLAC, 200 bytes a second."""
    out = io.BytesIO()
    with av.open(out, "w", format="flac") as container:
        track = container.add_stream("flac", rate=8_000)
        track.layout = "mono"
        block = np.zeros((1, 100 * 8_000), np.int16)
        for _ in range(round(hours * 36)):
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = 8_000
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return out.getvalue()


def _pcm(samples: Samples) -> Pcm:
    pcm: Pcm = (samples * 32767).astype("<i2")
    return pcm

"""Samples as files and live streams of many kinds, by PyAV."""

from __future__ import annotations

import io

import av
import numpy as np

from nemostream.protocol import Samples

CONTAINERS = {
    "wav": ("wav", "pcm_s16le", 16_000, {}),
    "ogg": ("ogg", "libopus", 48_000, {}),
    "webm": ("webm", "libopus", 48_000, {"cluster_time_limit": "100"}),
    "mp3": ("mp3", "libmp3lame", 24_000, {}),
    "flac": ("flac", "flac", 16_000, {}),
    "aac": ("adts", "aac", 16_000, {}),
    "mp4": ("mp4", "aac", 16_000, {"movflags": "frag_keyframe+empty_moov"}),
}
"""Muxer, codec, rate, and options with which it can be read while it is written."""


def encoded(kind: str, samples: Samples) -> bytes:
    """16 kHz mono, as one of CONTAINERS."""
    muxer, codec, rate, options = CONTAINERS[kind]
    out = io.BytesIO()
    with av.open(out, "w", format=muxer, options=options) as container:
        track = container.add_stream(codec, rate=rate)
        assert isinstance(track, av.AudioStream)
        track.layout = "mono"  # type: ignore[assignment]
        resample = av.AudioResampler(format=track.format, layout="mono", rate=rate)
        waiting = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for part in [*resample.resample(frame), *resample.resample(None)]:
            part.pts = None
            waiting.write(part)
        done = 0
        while part := waiting.read(track.codec_context.frame_size or 1024, partial=True):
            part.pts, done = done, done + part.samples
            container.mux(track.encode(part))
        container.mux(track.encode(None))
    return out.getvalue()

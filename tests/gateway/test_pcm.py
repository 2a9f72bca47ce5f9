"""Bytes to samples, however they are cut; G.711 against FFmpeg's decoder."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemostream.errors import AudioError
from nemostream_agent.gateway.pcm import ENCODINGS, PcmDecoder

FRAMES = 4000


def sound(encoding: str, channels: int = 1) -> bytes:
    """Noise, as loud as it gets."""
    rng = np.random.default_rng(7)
    if encoding == "float32":
        return rng.uniform(-1, 1, FRAMES * channels).astype("<f4").tobytes()
    return rng.bytes(FRAMES * channels * {"pcm16": 2, "pcm32": 4}.get(encoding, 1))


def decoded(encoding: str, rate: int, channels: int, pieces: list[bytes]) -> np.ndarray:
    decoder = PcmDecoder(encoding, rate, channels)
    parts = [decoder.push(piece) for piece in pieces] + [decoder.finish()]
    return np.concatenate([p / np.float32(32768) if p.dtype == np.int16 else p for p in parts])


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=8), rate=st.sampled_from([8000, 16_000, 48_000]))
def test_samples_do_not_depend_on_how_bytes_are_cut(encoding: str, cuts: list[int], rate: int) -> None:
    data = sound(encoding, 2)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in zip(places, places[1:], strict=False)]
    whole = decoded(encoding, rate, 2, [data])
    np.testing.assert_allclose(decoded(encoding, rate, 2, pieces), whole, atol=1e-6)
    assert abs(len(whole) - FRAMES * 16_000 / rate) <= 1


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_g711_is_what_ffmpeg_makes_of_every_byte(law: str) -> None:
    codec = av.CodecContext.create(f"pcm_{law}", "r")
    codec.sample_rate, codec.layout = 16_000, "mono"
    codes = bytes(range(256))
    [frame] = codec.decode(av.Packet(codes))
    expected = frame.to_ndarray().ravel() / np.float32(32768)
    np.testing.assert_array_equal(decoded(law, 16_000, 1, [codes]), expected)


def test_what_is_16_khz_already_goes_through_untouched() -> None:
    data = sound("pcm16")
    samples = PcmDecoder("pcm16", 16_000).push(data + b"\x01")
    assert samples.dtype == np.int16 and samples.tobytes() == data


def test_channels_are_mixed() -> None:
    left, right = np.frombuffer(sound("pcm16"), "<i2")[:100], np.zeros(100, "<i2")
    both = decoded("pcm16", 16_000, 2, [np.stack([left, right], 1).tobytes()])
    np.testing.assert_allclose(both, left / 65536, atol=1e-7)


@pytest.mark.parametrize(
    ("encoding", "rate", "channels"), [("opus", 16_000, 1), ("pcm16", 4000, 1), ("pcm16", 16_000, 0)]
)
def test_what_no_speech_has_is_refused(encoding: str, rate: int, channels: int) -> None:
    with pytest.raises(AudioError):
        PcmDecoder(encoding, rate, channels)

"""Samples come out as exact in number as time is, and what is not Opus comes to nothing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream.protocol import Pcm
from nemostream_agent.gateway.whip.opus import FADE, LONGEST, NotOpus, OpusDecoder, duration
from nemostream_agent.gateway.whip.placed import RATE
from tests.clips import clip
from tests.examples import examples
from tests.whip.packets import opus_packets, wide

DELAY = 312
"""Ticks by which libopus's encoder looks ahead: the decoded sound is so much later."""
HELD = 16
"""Samples that the resampler holds back."""


def tone(hertz: float, seconds: float) -> Pcm:
    return np.round(8000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.int16)


@cache
def hum() -> list[bytes]:
    """41 packets."""
    return opus_packets(tone(300, 0.82))


@pytest.mark.parametrize("frame_ms", [2.5, 5, 10, 20, 40, 60, 120])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("application", ["voip", "lowdelay"])
def test_as_many_samples_as_time(frame_ms: float, channels: int, application: str) -> None:
    pcm = wide(clip("refund"))
    sound = pcm if channels == 1 else np.stack([pcm, pcm // 2], axis=1)
    packets = opus_packets(sound, frame_ms, application=application)
    assert {duration(packet) for packet in packets} == {round(frame_ms * RATE / 1000)}
    decoder, given = OpusDecoder(), 0
    for i, packet in enumerate(packets, 1):
        given += len(decoder.decode(packet))
        assert i * duration(packet) // 3 - given <= HELD
    assert given + len(decoder.finish()) == sum(map(duration, packets)) // 3


def test_the_sound_is_where_it_was() -> None:
    pcm = wide(clip("refund"))
    decoded = _decode(opus_packets(pcm, bit_rate=96_000, application="audio"))
    wanted = np.pad(pcm, (DELAY, 0))[::3][: len(decoded)]
    assert _lag(wanted, decoded) == 0
    assert np.corrcoef(wanted, decoded)[0, 1] > 0.95


def test_stereo_is_mixed() -> None:
    left, right = tone(500, 1), tone(1500, 1)
    decoded = _decode(opus_packets(np.stack([left, right], axis=1), bit_rate=96_000))
    spectrum = np.abs(np.fft.rfft(decoded[8000:16_000])) / 4000
    assert spectrum[250] == pytest.approx(4000, rel=0.05)
    assert spectrum[750] == pytest.approx(4000, rel=0.05)


@pytest.mark.parametrize("frame_ms", [10, 20, 120])
def test_what_is_lost_goes_on_as_it_sounded_and_then_fades(frame_ms: float) -> None:
    packets = opus_packets(tone(200, 0.72), frame_ms)
    decoder = OpusDecoder()
    before = np.concatenate([decoder.decode(packet) for packet in packets])
    made = np.concatenate([decoder.conceal(96), decoder.finish(), decoder.conceal(6000)])
    level = _level(before[-3200:])
    assert level * 0.8 < _level(made[HELD + 32 :][:160]) < level * 1.1
    assert level * 0.2 < _level(made[HELD + 32 :][480:640]) < level * 0.5
    assert not made[HELD + 32 :][FADE // 3 + 2 * HELD :].any()
    assert len(before) + len(made) + len(decoder.finish()) == (0.72 * RATE + 6096) // 3


def test_nothing_that_came_before_can_go_on() -> None:
    decoder = OpusDecoder()
    made = decoder.conceal(960)
    assert not made.any() and len(made) + len(decoder.finish()) == 320


def test_silence_and_a_finish_in_between_leave_the_count_exact() -> None:
    packets = opus_packets(wide(clip("refund")))
    decoder, given, ticks = OpusDecoder(), 0, 0
    for i, packet in enumerate(packets):
        given += len(decoder.decode(packet))
        ticks += 960
        if i % 7 == 0:
            given, ticks = given + len(decoder.silence(3 * i)), ticks + 3 * i
        if i % 11 == 0:
            given += len(decoder.finish())
            assert given * 3 == ticks
    assert (given + len(decoder.finish())) * 3 == ticks


@settings(max_examples=examples(60, 2000), deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=80), st.integers(0, 40)), min_size=1, max_size=30))
def test_garbage_is_refused_or_as_long_as_it_says(items: list[bytes | int]) -> None:
    """Among packets that are good."""
    decoder, ticks, given = OpusDecoder(), 0, 0
    for item in items:
        payload = item if isinstance(item, bytes) else hum()[item]
        try:
            given += len(decoder.decode(payload))
        except NotOpus:
            assert isinstance(item, bytes)
            continue
        assert 0 < duration(payload) <= LONGEST
        ticks += duration(payload)
    assert (given + len(decoder.finish())) * 3 == ticks


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\xff\x00", b"\xff\x3f", b"\x03\x3f", b"\x01\x00", b"\x02\xff\xff"])
def test_a_refusal_leaves_the_decoder_as_it_was(payload: bytes) -> None:
    good = opus_packets(wide(clip("refund")))
    decoder, undisturbed = OpusDecoder(), OpusDecoder()
    for packet in good[:40]:
        with pytest.raises(NotOpus):
            decoder.decode(payload)
        assert np.array_equal(decoder.decode(packet), undisturbed.decode(packet))
    assert np.array_equal(decoder.conceal(960), undisturbed.conceal(960))


def _decode(packets: list[bytes]) -> Pcm:
    decoder = OpusDecoder()
    return np.concatenate([*(decoder.decode(packet) for packet in packets), decoder.finish()])


def _level(samples: Pcm) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def _lag(wanted: Pcm, found: Pcm, most: int = 100) -> int:
    """Samples by which `found` is later."""
    return int(np.correlate(found.astype(float), wanted[most:-most].astype(float)).argmax()) - most

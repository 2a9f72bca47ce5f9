"""A stream of the adapter on the real engine with the embedded English model."""

from __future__ import annotations

import time

import pytest
from livekit.agents import metrics
from livekit.agents.stt import SpeechEventType

from livekit import rtc
from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream.group import Group
from nemostream.protocol import Endpointing, Open
from nemostream.seat import Key, Seat
from tests.adapter.helpers import (
    check_order,
    clip,
    eventually,
    finals,
    next_of,
    of,
    push,
    read_to_end,
    silence,
    toy,
)

FINAL = SpeechEventType.FINAL_TRANSCRIPT


def test_it_says_what_it_can_do(stt: nemo.STT) -> None:
    can = stt.capabilities
    assert can.streaming and can.interim_results and can.offline_recognize and can.manual_flush and can.keyterms
    assert can.aligned_transcript == "word"
    assert not (can.diarization or can.chat_context)
    assert (stt.model, stt.provider) == ("en-starter", "NeMo")


async def test_speech_becomes_interims_a_final_and_the_words_in_time(stt: nemo.STT) -> None:
    speech = clip("monday")
    stream = stt.stream()
    stream.start_time_offset = 100.0
    push(stream, speech.pcm)
    stream.end_input()
    events = await read_to_end(stream)
    check_order(events)
    assert finals(events) == [speech.text]
    assert of(events, SpeechEventType.INTERIM_TRANSCRIPT)
    data = next(e for e in of(events, FINAL) if e.alternatives[0].text).alternatives[0]
    assert data.language == "en"
    assert data.words is not None and [str(word) for word in data.words] == speech.text.split()
    times = [t for word in data.words for t in (word.start_time, word.end_time)]
    assert times == sorted(times)
    assert 99.9 < data.start_time == times[0] and times[-1] == data.end_time <= 100.1 + len(speech.pcm) / 16_000
    assert all(word.start_time_offset == pytest.approx(100.0, abs=0.001) for word in data.words)
    assert 0 < data.confidence <= 1


async def test_each_flush_is_answered_by_one_final(stt: nemo.STT) -> None:
    speech = clip("tonight")
    stream = stt.stream()
    push(stream, speech.pcm)
    for _ in range(3):
        stream.flush()
    push(stream, silence(0.2))
    for _ in range(3):
        stream.flush()
    stream.end_input()
    events = await read_to_end(stream)
    check_order(events)
    texts = [e.alternatives[0].text for e in of(events, FINAL)]
    answers = [text for text in texts if not text]
    assert finals(events) == [speech.text]
    # Seven flushes (the last is that of end_input); one of them may have been the one that gave the text.
    assert len(answers) in (6, 7) and len(texts) <= 8


async def test_the_end_of_an_empty_input_is_answered_too(stt: nemo.STT) -> None:
    stream = stt.stream()
    stream.end_input()
    events = await read_to_end(stream)
    assert [(e.type, e.alternatives[0].text) for e in events] == [(FINAL, "")]


async def test_a_flush_without_new_audio_answers_at_once(stt: nemo.STT) -> None:
    stream = stt.stream()
    push(stream, silence(0.5))
    started = time.perf_counter()
    stream.flush()
    event = await next_of(stream, FINAL)
    assert event.alternatives[0].text == ""
    assert time.perf_counter() - started < 0.5
    await stream.aclose()


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 2), (24_000, 1), (44_100, 2), (48_000, 1)])
async def test_frames_of_any_rate_are_heard_whole(stt: nemo.STT, rate: int, channels: int) -> None:
    speech = clip("monday", rate)
    used = 0.0

    def count(collected: metrics.STTMetrics) -> None:
        nonlocal used
        used += collected.audio_duration

    stt.on("metrics_collected", count)
    stream = stt.stream()
    push(stream, speech.pcm, rate, channels=channels, frame_ms=10)
    stream.end_input()
    events = await read_to_end(stream)
    await stream.aclose()
    heard = " ".join(finals(events))
    # Below 16 kHz the upper half of the spectrum is missing, which this small model does hear.
    assert heard == speech.text if rate >= 16_000 else set(heard.split()) & set(speech.text.split())
    assert used == pytest.approx(len(speech.pcm) / rate, abs=0.002)


async def test_a_rate_out_of_range_or_a_change_of_rate_is_refused(stt: nemo.STT) -> None:
    async with stt.stream() as stream:
        with pytest.raises(ValueError, match="8000 to 48000 Hz, not at 96000"):
            stream.push_frame(rtc.AudioFrame(bytes(192), 96_000, 1, 96))
        stream.push_frame(rtc.AudioFrame(bytes(320), 16_000, 1, 160))
        with pytest.raises(ValueError, match="consistent"):
            stream.push_frame(rtc.AudioFrame(bytes(480), 24_000, 1, 240))


async def test_muting_finalises_and_frames_while_muted_are_not_heard(toy_stt: nemo.STT) -> None:
    speech, other = toy("hello", "world"), toy("please", "call", "me")
    stream = toy_stt.stream()
    push(stream, speech.pcm)
    stream.mute()
    event = await next_of(stream, FINAL)
    assert event.alternatives[0].text == speech.text
    push(stream, other.pcm)
    stream.unmute()
    push(stream, other.pcm)
    stream.end_input()
    events = await read_to_end(stream)
    assert finals(events) == [other.text]
    words = next(e for e in of(events, FINAL) if e.alternatives[0].text).alternatives[0].words
    assert words is not None and words[0].start_time >= len(speech.pcm) / 16_000


async def test_speech_ends_on_the_wall_clock_where_the_last_word_ended(stt: nemo.STT) -> None:
    speech = clip("monday")
    stream = stt.stream()
    pushed_at = time.time()
    push(stream, speech.pcm)
    stream.flush()
    event = await next_of(stream, FINAL)
    end = event.alternatives[0].end_time
    assert event.speech_end_time == pytest.approx(pushed_at - (len(speech.pcm) / 16_000 - end), abs=0.2)
    assert (await next_of(stream, SpeechEventType.END_OF_SPEECH)).speech_end_time == event.speech_end_time
    await stream.aclose()


async def test_endpointing_can_be_changed_while_a_stream_is_open(engine: Engine) -> None:
    stt = nemo.STT(engine=engine, endpointing=Endpointing(blank_ms=None))
    stream = stt.stream()
    push(stream, silence(0.1))
    stream.flush()
    await next_of(stream, FINAL)
    stt.update_options(endpointing=Endpointing(blank_ms=240))
    speech = clip("tonight")
    push(stream, speech.pcm)
    push(stream, silence(1.0))
    # Without that nothing would be final; so short a pause may be one between two words.
    heard: list[str] = []
    while len(" ".join(heard)) < len(speech.text):
        heard.append((await next_of(stream, FINAL)).alternatives[0].text)
    assert " ".join(heard) == speech.text
    assert stt.stream(language="de")._opts.language == "de", "a language given to stream() is that stream's"
    assert stt.stream()._opts.language is None
    await stt.aclose()


async def test_closing_a_stream_frees_its_row_and_closing_the_stt_keeps_the_engine(engine: Engine) -> None:
    await eventually(lambda: engine.open_streams == 0)
    stt = nemo.STT(engine=engine)
    streams = [stt.stream() for _ in range(5)]
    for stream in streams:
        push(stream, silence(0.1))
    await eventually(lambda: engine.open_streams == 5)
    await streams[0].aclose()
    await eventually(lambda: engine.open_streams == 4)
    await stt.aclose()
    await eventually(lambda: engine.open_streams == 0)
    async with nemo.STT(engine=engine) as again:
        stream = again.stream()
        push(stream, clip("tonight").pcm)
        stream.end_input()
        assert finals(await read_to_end(stream)) == [clip("tonight").text]


async def test_usage_is_reported_for_all_audio(stt: nemo.STT) -> None:
    stream = stt.stream()
    push(stream, silence(3.0))
    stream.flush()
    push(stream, silence(0.5))
    stream.end_input()
    events = await read_to_end(stream)
    usage = [
        e.recognition_usage.audio_duration for e in of(events, SpeechEventType.RECOGNITION_USAGE) if e.recognition_usage
    ]
    assert usage == [pytest.approx(3.0), pytest.approx(0.5)]


async def test_a_stream_may_skip_silence(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wish reaches the engine, and words lie where they were spoken."""
    opened: list[Open] = []
    init = Seat.__init__

    def noted(seat: Seat, key: Key, message: Open, group: Group) -> None:
        opened.append(message)
        init(seat, key, message, group)

    monkeypatch.setattr(Seat, "__init__", noted)
    speech = clip("monday")
    async with nemo.STT(engine=engine, skip_silence=True) as stt:
        stream = stt.stream()
        push(stream, silence(4.0))
        push(stream, speech.pcm)
        stream.end_input()
        events = await read_to_end(stream)
    check_order(events)
    assert [message.skip_silence for message in opened] == [True]
    (data,) = [e.alternatives[0] for e in of(events, FINAL) if e.alternatives[0].text]
    assert 4.0 <= data.start_time < data.end_time <= 4.1 + len(speech.pcm) / 16_000

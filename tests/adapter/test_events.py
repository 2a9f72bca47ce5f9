"""The order of events, from scripted events of the engine: what a model cannot be made to do on demand."""

from __future__ import annotations

import time

import pytest
from livekit.agents import LanguageCode
from livekit.agents.stt import SpeechEvent, SpeechEventType

from livekit.plugins.nemo.events import Clock, EventMapper
from nemostream.protocol import Event, Final, FinalReason, Interim, Preflight, Usage, Word
from tests.adapter.helpers import check_order

START, INTERIM = SpeechEventType.START_OF_SPEECH, SpeechEventType.INTERIM_TRANSCRIPT
PREFLIGHT, FINAL, END = (
    SpeechEventType.PREFLIGHT_TRANSCRIPT,
    SpeechEventType.FINAL_TRANSCRIPT,
    SpeechEventType.END_OF_SPEECH,
)


def words(text: str) -> tuple[Word, ...]:
    return tuple(Word(word, 1600 * i, 1600 * (i + 1), 0.5) for i, word in enumerate(text.split()))


def interim(text: str) -> Event:
    return Interim(1, 1, 1, text, words(text))


def preflight(text: str) -> Event:
    return Preflight(1, 1, 1, text, words(text))


def final(text: str, reason: FinalReason = "endpoint", flush_id: int | None = None) -> Event:
    return Final(1, 1, 1, text, words(text), 0, 1600 * len(text.split()), reason, flush_id)


def mapped(*events: Event, clock: Clock | None = None) -> list[SpeechEvent]:
    mapper = EventMapper(clock or Clock(heard=32_000))
    mapper.language = LanguageCode("en")
    return [out for event in events for out in mapper.map(event)]


def kinds(events: list[SpeechEvent]) -> list[SpeechEventType]:
    return [event.type for event in events]


def test_an_utterance_is_start_interims_preflight_final_end() -> None:
    out = mapped(interim("a"), interim("a b"), preflight("a b"), final("a b"))
    assert kinds(out) == [START, INTERIM, INTERIM, PREFLIGHT, FINAL, END]
    check_order(out)


def test_a_final_without_interims_still_starts_and_ends_the_speech() -> None:
    assert kinds(mapped(final("a b", "end"))) == [START, FINAL, END]


@pytest.mark.parametrize("reason", ["endpoint", "gap", "idle", "end", "flush"])
def test_every_end_of_a_segment_but_the_length_limit_ends_the_speech(reason: FinalReason) -> None:
    flush_id = 1 if reason == "flush" else None
    assert kinds(mapped(interim("a"), final("a", reason, flush_id))) == [START, INTERIM, FINAL, END]


def test_a_long_speech_cut_at_the_limit_is_one_speech() -> None:
    out = mapped(interim("a"), final("a", "limit"), interim("b"), final("b"))
    assert kinds(out) == [START, INTERIM, FINAL, INTERIM, FINAL, END]


def test_a_flush_in_silence_is_answered_by_one_empty_final() -> None:
    out = mapped(final("", "flush", 1), final("", "flush", 2))
    assert kinds(out) == [FINAL, FINAL]
    assert [event.alternatives[0].text for event in out] == ["", ""]
    assert [event.alternatives[0].language for event in out] == ["en", "en"]


def test_a_flush_behind_the_limit_ends_the_speech_where_the_last_words_ended() -> None:
    clock = Clock(heard=160_000, heard_at=1000.0)
    out = mapped(final("a b", "limit"), final("", "flush", 1), clock=clock)
    assert kinds(out) == [START, FINAL, FINAL, END]
    assert out[-1].speech_end_time == pytest.approx(1000.0 - (160_000 - 3200) / 16_000)


def test_an_empty_final_that_nobody_asked_for_retracts_and_is_not_sent() -> None:
    out = mapped(interim("a"), final("", "idle"))
    assert kinds(out) == [START, INTERIM, INTERIM, END]
    assert out[2].alternatives[0].text == ""
    assert kinds(mapped(final("", "idle"))) == []


def test_a_flush_that_finds_only_retracted_text_is_answered_and_ends_the_speech() -> None:
    assert kinds(mapped(interim("a"), final("", "flush", 1))) == [START, INTERIM, INTERIM, FINAL, END]


def test_text_that_is_retracted_as_an_interim_ends_the_speech_at_once() -> None:
    out = mapped(interim("a"), interim(""), interim("b"), final("b"))
    assert kinds(out) == [START, INTERIM, INTERIM, END, START, INTERIM, FINAL, END]
    check_order(out)


def test_events_that_are_not_about_speech_give_none() -> None:
    assert mapped(Usage(1, 1, 1, 16_000), interim("")) == []


def test_times_carry_origin_and_offset_and_words_their_own() -> None:
    clock = Clock(origin=16_000, offset=100.0, heard=48_000)
    [_, event, _] = mapped(final("a b"), clock=clock)
    data = event.alternatives[0]
    assert (data.start_time, data.end_time) == (101.0, 101.2)
    assert data.words is not None
    assert [(str(w), w.start_time, w.end_time, w.start_time_offset) for w in data.words] == [
        ("a", 101.0, 101.1, 100.0),
        ("b", 101.1, 101.2, 100.0),
    ]
    assert data.confidence == 0.5


def test_wall_clock_is_counted_back_from_the_newest_audio() -> None:
    clock = Clock()
    clock.hear(32_000)
    start, event, end = mapped(final("a b"), clock=clock)
    now = time.time()
    assert start.speech_start_time == pytest.approx(now - 2.0, abs=0.1)
    assert event.speech_end_time == end.speech_end_time == pytest.approx(now - 1.8, abs=0.1)

"""An engine that fails in the middle of a word loses nothing: what was said since the last final is heard again."""

from __future__ import annotations

import asyncio

import pytest
from livekit.agents import APIConnectionError
from livekit.agents.stt import SpeechData, SpeechEventType, STTError
from livekit.agents.types import APIConnectOptions

from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream.models.bundle import Bundle
from nemostream.protocol import Endpointing
from tests.adapter.faults import FaultyEngine
from tests.adapter.helpers import Clip, check_order, clip, finals, frames, next_of, of, push, read_to_end, silence, toy

FINAL = SpeechEventType.FINAL_TRANSCRIPT
QUICK = APIConnectOptions(retry_interval=0.05)


def faulty(engine: Engine, **options: object) -> tuple[nemo.STT, list[bool]]:
    stt = nemo.STT(engine=engine, **options)  # type: ignore[arg-type]
    recoverable: list[bool] = []

    def on_error(error: STTError) -> None:
        recoverable.append(error.recoverable)

    stt.on("error", on_error)
    return stt, recoverable


async def heard(stt: nemo.STT, speech: Clip) -> tuple[list[str], SpeechData]:
    """The texts that became final, and all of the last one."""
    stream = stt.stream(conn_options=QUICK)
    stream.start_time_offset = 50.0
    push(stream, speech.pcm)
    stream.end_input()
    events = await read_to_end(stream)
    check_order(events)
    await stt.aclose()
    last = [e.alternatives[0] for e in of(events, FINAL) if e.alternatives[0].text][-1]
    return finals(events), last


@pytest.mark.parametrize("after", [1, 16_000, 30_000])
async def test_the_text_is_that_of_an_engine_that_never_failed(engine: Engine, after: int) -> None:
    speech = clip("monday")
    _, undisturbed = await heard(nemo.STT(engine=engine), speech)
    stt, errors = faulty(FaultyEngine(engine, after=after))  # type: ignore[arg-type]
    texts, last = await heard(stt, speech)
    assert errors == [True]
    assert texts == [speech.text]
    assert last.end_time == pytest.approx(undisturbed.end_time, abs=0.01), "times do not move by the time of the retry"
    assert last.metadata == {"possible_loss": True} and not undisturbed.metadata, "who reads it is told"


async def test_text_before_the_failure_is_neither_repeated_nor_lost(engine: Engine, toy_bundle: Bundle) -> None:
    first, second = toy("hello", "world"), toy("please", "call", "me")
    after = len(first.pcm) + 16_000 + len(second.pcm) // 2
    stt, errors = faulty(
        FaultyEngine(engine, after=after),  # type: ignore[arg-type]
        model=str(toy_bundle.path),
        chunk_ms=160,
        endpointing=Endpointing(blank_ms=None),
    )
    stream = stt.stream(conn_options=QUICK)
    push(stream, first.pcm)
    push(stream, silence(1.0))
    stream.flush()
    assert (await next_of(stream, FINAL)).alternatives[0].text == first.text
    push(stream, second.pcm)
    stream.end_input()
    events = await read_to_end(stream)
    assert errors == [True]
    assert finals(events) == [second.text]
    times = next(e for e in of(events, FINAL) if e.alternatives[0].text).alternatives[0]
    assert times.start_time > (len(first.pcm) + 16_000) / 16_000
    await stt.aclose()


async def test_a_flush_that_was_lost_is_asked_again_and_answered_once(engine: Engine) -> None:
    speech = clip("tonight")
    # The stream fails with the very push that completes the audio; the flush behind it goes nowhere.
    stt, errors = faulty(FaultyEngine(engine, after=len(speech.pcm)))  # type: ignore[arg-type]
    stream = stt.stream(conn_options=QUICK)
    push(stream, speech.pcm)
    stream.flush()
    event = await next_of(stream, FINAL)
    texts = [event.alternatives[0].text]
    stream.end_input()
    texts += [e.alternatives[0].text for e in of(await read_to_end(stream), FINAL)]
    assert errors == [True]
    assert [text for text in texts if text] == [speech.text]
    assert len(texts) <= 3, "two flushes, and an endpoint at most"
    await stt.aclose()


async def test_an_engine_that_goes_on_failing_ends_the_stream_with_an_api_error(engine: Engine) -> None:
    stt, errors = faulty(FaultyEngine(engine, after=1, failures=100))  # type: ignore[arg-type]
    stream = stt.stream(conn_options=APIConnectOptions(max_retry=2, retry_interval=0.01))
    for frame in frames(silence(0.5)):
        stream.push_frame(frame)
    with pytest.raises(APIConnectionError):
        await read_to_end(stream)
    assert errors == [True, True, False]
    await stt.aclose()


async def test_cancelling_a_stream_between_two_attempts_leaves_nothing_behind(engine: Engine) -> None:
    stt, errors = faulty(FaultyEngine(engine, after=1))  # type: ignore[arg-type]
    failed = asyncio.Event()
    stt.on("error", lambda _: failed.set())
    stream = stt.stream(conn_options=APIConnectOptions(retry_interval=60))
    push(stream, silence(0.1))
    await asyncio.wait_for(failed.wait(), 10)
    await stream.aclose()
    assert errors == [True]
    await stt.aclose()

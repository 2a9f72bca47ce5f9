"""A real AgentSession with our STT: one turn for each utterance, and a commit that waits for no audio."""

from __future__ import annotations

import time

from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream.models.bundle import Bundle
from nemostream.protocol import Endpointing
from tests.adapter.helpers import clip, eventually, silence, toy
from tests.adapter.session import Conversation
from tests.serving import ServedEngine

CHUNK_MS = 160
CHUNK = CHUNK_MS * 16


async def test_turns_by_the_stt_are_one_for_each_utterance(engine: Engine, toy_bundle: Bundle) -> None:
    # The words of the toy language are up to 600 ms apart.
    endpointing = Endpointing(blank_ms=960)
    stt = nemo.STT(model=str(toy_bundle.path), chunk_ms=CHUNK_MS, engine=engine, endpointing=endpointing)
    first, second = toy("hello", "world"), toy("please", "call", "me")
    async with Conversation(stt, turn_detection="stt") as talk:
        await talk.hear(first.pcm)
        await talk.hear(silence(1.5))
        assert await talk.turn() == first.text
        await talk.hear(second.pcm)
        await talk.hear(silence(1.5))
        assert await talk.turn() == second.text
        await talk.hear(silence(1.0))
        assert talk.turns.empty()
    assert [state for state in talk.states if state in ("speaking", "listening")] == ["speaking", "listening"] * 2
    await stt.aclose()


async def test_speech_of_a_person_is_one_turn_by_the_stt(stt: nemo.STT) -> None:
    speech = clip("monday")
    async with Conversation(stt, turn_detection="stt") as talk:
        await talk.hear(speech.pcm)
        await talk.hear(silence(1.0))
        assert await talk.turn() == speech.text
        await talk.hear(silence(1.0))
        assert talk.turns.empty()
    assert talk.finals == [speech.text]


async def test_turns_by_the_default_vad_are_one_for_each_utterance(stt: nemo.STT) -> None:
    speech = clip("monday")
    async with Conversation(stt, turn_detection="vad") as talk:
        await talk.hear(speech.pcm)
        await talk.hear(silence(1.0))
        assert await talk.turn() == speech.text
        await talk.hear(silence(1.0))
        assert talk.turns.empty()
    assert talk.finals == [speech.text]


async def test_a_committed_turn_is_answered_without_waiting_for_audio(engine: ServedEngine) -> None:
    speech = clip("tonight")
    pcm = speech.pcm[: 2 * 16_000]  # cut close behind the last word: much is pending
    stt = nemo.STT(chunk_ms=CHUNK_MS, engine=engine, endpointing=Endpointing(blank_ms=None))
    before = engine.encoder_calls
    async with Conversation(stt, turn_detection="manual") as talk:
        talk.hear_at_once(pcm)
        complete = len(pcm) // CHUNK
        await eventually(lambda: engine.encoder_calls >= before + complete)
        calls = engine.encoder_calls
        started = time.perf_counter()
        text = await talk.session.commit_user_turn()
        seconds = time.perf_counter() - started
        assert text == speech.text
        pending = len(pcm) - complete * CHUNK
        flush = engine.behind._core.models[None].flush_samples
        assert engine.encoder_calls - calls <= -(-(pending + flush) // CHUNK)
        assert seconds < 0.5
    await stt.aclose()


async def test_a_committed_turn_without_speech_is_answered_at_once(stt: nemo.STT) -> None:
    async with Conversation(stt, turn_detection="manual") as talk:
        talk.hear_at_once(silence(0.5))
        started = time.perf_counter()
        assert await talk.session.commit_user_turn() == ""
        # Without the empty final it would be two seconds.
        assert time.perf_counter() - started < 0.5

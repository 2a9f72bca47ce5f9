"""Keyterms and languages from where users set them to the engine's stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from livekit.agents import APIStatusError
from livekit.agents.stt import SpeechEventType

from livekit.plugins import nemo
from nemostream.client import ClientStream
from nemostream.keyterms import MAX_TERMS
from nemostream.models.bundle import Bundle
from nemostream.protocol import Endpointing
from nemostream.stream import Stream
from tests.adapter.helpers import ONE_TRY, eventually, next_of, of, push, read_to_end, silence
from tests.adapter.session import Conversation
from tests.serving import ServedEngine
from tests.speech import utterance

FINAL = SpeechEventType.FINAL_TRANSCRIPT


def streams(engine: ServedEngine) -> list[Stream]:
    """Those that are open behind the socket."""
    return [seat.stream for seat in engine.behind._core._seats]


def terms(engine: ServedEngine) -> list[tuple[str, ...]]:
    return [stream.feed.options.keyterms for stream in streams(engine)]


async def test_the_sessions_terms_come_beside_the_users_and_change_while_it_runs(engine: ServedEngine) -> None:
    await eventually(lambda: engine.open_streams == 0)
    stt = nemo.STT(engine=engine, keyterms=["Priya Raman", "nemostream"])
    assert stt.capabilities.keyterms
    options = {"keyterms": ["Siobhan", "nemostream"]}
    async with Conversation(stt, stt_context_options=options, turn_detection="manual") as talk:
        talk.hear_at_once(silence(0.5))
        await eventually(lambda: terms(engine) == [("Priya Raman", "nemostream", "Siobhan")])
        talk.session.update_options(keyterms=["Anouk", "", "x" * 101])
        await eventually(lambda: terms(engine) == [("Priya Raman", "nemostream", "Anouk")])
        stt.update_options(keyterms=[])
        await eventually(lambda: terms(engine) == [("Anouk",)])
        await eventually(lambda: streams(engine)[0].keyterms == ("Anouk",))
        stt._update_session_keyterms([f"term {i}" for i in range(MAX_TERMS + 5)])
        await eventually(lambda: len(terms(engine)[0]) == MAX_TERMS)
    await stt.aclose()


async def test_what_changes_while_a_stream_is_opening_is_not_lost(
    engine: ServedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await eventually(lambda: engine.open_streams == 0)
    stt = nemo.STT(engine=engine, keyterms=["early"])
    opening = stt.open

    async def open_slowly(*args: Any, **options: Any) -> ClientStream:
        opened = await opening(*args, **options)
        stt.update_options(keyterms=["late"])
        return opened

    monkeypatch.setattr(stt, "open", open_slowly)
    push(stt.stream(), silence(0.1))
    await eventually(lambda: terms(engine) == [("late",)])
    await stt.aclose()


async def test_options_that_change_while_a_stream_ends_are_no_error(engine: ServedEngine) -> None:
    stt = nemo.STT(engine=engine)
    stream = stt.stream()
    push(stream, silence(0.1))
    await eventually(lambda: stream._engine_stream is not None)
    assert stream._engine_stream is not None
    stream._engine_stream.close()
    stt.update_options(keyterms=["late"])
    stt._update_session_keyterms(["later"])
    await stt.aclose()


async def test_terms_without_a_tokenizer_are_an_error_that_no_retry_mends(
    engine: ServedEngine, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "tokenizer", None)
    stt = nemo.STT(model=str(toy_bundle.path), engine=engine, keyterms=["a rather new term"])
    stream = stt.stream(conn_options=ONE_TRY)
    push(stream, silence(0.1))
    with pytest.raises(APIStatusError, match="came without its tokenizer") as caught:
        await read_to_end(stream)
    assert caught.value.status_code == 400 and not caught.value.retryable
    await stt.aclose()


async def test_a_language_is_asked_for_and_the_one_that_was_heard_is_told(
    engine: ServedEngine, kind_bundle: Callable[[str], Bundle]
) -> None:
    await eventually(lambda: engine.open_streams == 0)
    bundle = kind_bundle("prompt")
    often = Endpointing(blank_ms=160)
    stt = nemo.STT(model=str(bundle.path), chunk_ms=320, engine=engine, language="hi", endpointing=often)
    stream = stt.stream()
    push(stream, silence(0.1))
    await eventually(lambda: engine.open_streams == 1)
    prompts = bundle.info.prompts
    assert streams(engine)[0].feed.options.prompt == prompts["hi-IN"]
    stt.update_options(language="en-GB")
    await eventually(lambda: streams(engine)[0].feed.options.prompt == prompts["en-US"])
    for seed in range(3):
        push(stream, (utterance(seed)[1] * 32767).astype(np.int16))
    stream.end_input()
    events = await read_to_end(stream)
    languages = {str(event.alternatives[0].language) for event in of(events, FINAL)}
    marks = {piece.strip("<>") for piece in bundle.tokens if piece.startswith("<") and "-" in piece}
    assert languages <= marks | {"hi", "en-GB"} and languages & marks, "the random model says languages now and then"
    assert not any("<" in event.alternatives[0].text for event in of(events, FINAL))
    await stt.aclose()


async def test_a_model_that_finds_out_the_language_itself_says_none_before(
    engine: ServedEngine, kind_bundle: Callable[[str], Bundle]
) -> None:
    stt = nemo.STT(model=str(kind_bundle("prompt").path), chunk_ms=320, engine=engine)
    stream = stt.stream()
    push(stream, silence(0.2))
    stream.flush()
    assert str((await next_of(stream, FINAL)).alternatives[0].language) == ""
    await stt.aclose()


@pytest.mark.parametrize("bad", [[""], ["x" * 101], ["a"] + [f"b{i}" for i in range(MAX_TERMS)], [7]])
def test_terms_that_nobody_could_use_are_refused_at_once(bad: list[str]) -> None:
    with pytest.raises(ValueError, match="keyterms"):
        nemo.STT(keyterms=bad)

"""LiveKit closes and opens streams in the middle of a call: the next one goes on with what the last one heard."""

from __future__ import annotations

import numpy as np
import pytest
from livekit.agents.stt import SpeechEventType
from livekit.agents.types import NOT_GIVEN, NotGivenOr

from livekit.plugins import nemo
from nemostream.engine import Engine
from nemostream.models.bundle import Bundle
from nemostream.protocol import NO_ENDPOINT
from tests.adapter.helpers import finals, next_of, push, read_to_end, silence, toy

FIRST, SECOND = toy("hello", "world"), toy("please", "call", "me", seed=5)


async def text_of_second(
    stt: nemo.STT, *, other: bool = False, language: NotGivenOr[str] = NOT_GIVEN
) -> tuple[list[str], float, int]:
    """Speak the first sentence, close, open, speak the second: its finals, its first word's time, and the sample at
    which the engine's stream began."""
    stream = stt.stream()
    push(stream, FIRST.pcm)
    stream.flush()
    await next_of(stream, SpeechEventType.FINAL_TRANSCRIPT)
    await stream.aclose()
    idle = stt.stream() if other else None
    stream = stt.stream(language=language)
    push(stream, np.concatenate([silence(0.5), SECOND.pcm]))
    stream.flush()
    event = await next_of(stream, SpeechEventType.FINAL_TRANSCRIPT)
    assert stream._engine_stream is not None and stream._engine_stream.started is not None
    began = stream._engine_stream.started.at_sample
    stream.end_input()
    texts = [event.alternatives[0].text, *finals(await read_to_end(stream))]
    if idle is not None:
        await idle.aclose()
    return [t for t in texts if t], event.alternatives[0].start_time, began


async def test_the_next_stream_goes_on_with_the_state_of_the_last(toy_stt: nemo.STT) -> None:
    texts, start, began = await text_of_second(toy_stt)
    assert texts == [SECOND.text]
    assert began == len(FIRST.pcm), "the engine's clock went on"
    assert 0.3 < start < 1.0, "and the new stream's times begin at 0"


@pytest.mark.parametrize("different", [{"other": True}, {"language": "en-GB"}])
async def test_only_its_successor_goes_on_with_it(toy_stt: nemo.STT, different: dict[str, object]) -> None:
    """Another voice, or another language, must not."""
    texts, _, began = await text_of_second(toy_stt, **different)  # type: ignore[arg-type]
    assert texts == [SECOND.text] and began == 0


async def test_what_does_not_fit_any_more_is_done_without(engine: Engine, toy_bundle: Bundle) -> None:
    stt = nemo.STT(model=str(toy_bundle.path), chunk_ms=160, engine=engine, endpointing=NO_ENDPOINT)
    stream = await stt.open(stt._opts, 10.0, resume=b"not a snapshot")
    assert stream.started is not None and stream.started.at_sample == 0
    stream.close(drain=False)
    await stt.aclose()

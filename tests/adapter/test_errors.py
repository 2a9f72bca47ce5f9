"""Everything that goes wrong leaves as an APIError; only what another try may mend is retryable."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
from livekit.agents.stt import STTError

from livekit.plugins import nemo
from livekit.plugins.nemo.errors import api_error, failed_error
from nemostream import errors
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.protocol import Endpointing, Failed
from tests.adapter.helpers import ONE_TRY, clip, eventually, frames, push, read_to_end, silence


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"model": " "}, "model must be"),
        ({"chunk_ms": 100}, "multiple of 80 ms, not 100"),
        ({"chunk_ms": 0}, "multiple of 80 ms, not 0"),
        ({"language": ""}, "language must be"),
        ({"endpointing": 400}, "must be an Endpointing, not 400"),
        ({"endpointing": Endpointing(blank_ms=40)}, "blank_ms must be None"),
        ({"engine": "remote"}, "'local' or an Engine"),
    ],
)
def test_an_impossible_option_is_refused_by_the_constructor(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nemo.STT(**option)  # type: ignore[arg-type]


async def failure(stt: nemo.STT) -> APIError:
    stream = stt.stream(conn_options=ONE_TRY)
    push(stream, silence(0.1))
    with pytest.raises(APIError) as caught:
        await read_to_end(stream)
    await stt.aclose()
    return caught.value


async def test_a_full_engine_is_a_retryable_503(engine: Engine) -> None:
    full = Engine(EngineConfig(max_streams=1))
    first = nemo.STT(engine=full)
    occupant = first.stream()
    push(occupant, silence(0.1))
    await eventually(lambda: full.open_streams == 1)
    error = await failure(nemo.STT(engine=full))
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.retryable) == (503, True)
    await first.aclose()
    full.close()


async def test_a_stream_that_found_the_engine_full_is_heard_once_a_row_is_free(engine: Engine) -> None:
    full = Engine(EngineConfig(max_streams=1))
    first, second = nemo.STT(engine=full), nemo.STT(engine=full)
    occupant = first.stream()
    push(occupant, silence(0.1))
    await eventually(lambda: full.open_streams == 1)
    told: list[bool] = []
    closing: list[asyncio.Task[None]] = []

    def free(error: STTError) -> None:
        told.append(error.recoverable)
        closing.append(asyncio.create_task(occupant.aclose()))

    second.on("error", free)
    stream = second.stream()
    push(stream, clip("tonight").pcm)
    stream.end_input()
    events = await read_to_end(stream)
    assert (
        told
        and [e.alternatives[0].text for e in events if e.alternatives and e.alternatives[0].text][-1]
        == clip("tonight").text
    )
    await first.aclose()
    await second.aclose()
    full.close()


async def test_an_unknown_model_is_a_404_for_good(engine: Engine) -> None:
    error = await failure(nemo.STT(model="no-such-model", engine=engine))
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.retryable) == (404, False)
    assert "no-such-model" in error.message


async def test_a_chunk_size_that_the_bundle_lacks_is_a_400_for_good(engine: Engine) -> None:
    error = await failure(nemo.STT(chunk_ms=2000, engine=engine))
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.retryable) == (400, False)


async def test_a_broken_bundle_is_a_500_for_good(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{")
    error = await failure(nemo.STT(model=str(tmp_path), engine=engine))
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.retryable) == (500, False)


async def test_recognize_maps_errors_in_the_same_way(engine: Engine) -> None:
    async with nemo.STT(model="no-such-model", engine=engine) as stt:
        with pytest.raises(APIStatusError) as caught:
            await stt.recognize(list(frames(silence(0.1))), conn_options=ONE_TRY)
    assert caught.value.status_code == 404


async def test_an_engine_that_is_closed_under_a_stream_is_a_connection_error() -> None:
    engine = Engine()
    stt = nemo.STT(engine=engine)
    stream = stt.stream(conn_options=ONE_TRY)
    push(stream, silence(0.1))
    await eventually(lambda: engine.open_streams == 1)
    engine.close()
    with pytest.raises(APIConnectionError):
        await read_to_end(stream)
    await stt.aclose()


def test_errors_without_a_status_are_connection_errors_worth_another_try() -> None:
    assert isinstance(api_error(TimeoutError("no answer")), APITimeoutError)
    lost = api_error(errors.StreamClosed("gone"))
    assert isinstance(lost, APIConnectionError) and lost.retryable
    defect = api_error(ZeroDivisionError("division by zero"))
    assert isinstance(defect, APIConnectionError) and defect.retryable


@pytest.mark.parametrize("code", ["StepFailed", "RuntimeError"])
@pytest.mark.parametrize("retryable", [True, False])
def test_a_stream_that_failed_is_tried_again_where_the_engine_says_so(code: str, retryable: bool) -> None:
    assert failed_error(Failed(1, 1, 1, code, "it broke", retryable)).retryable is retryable

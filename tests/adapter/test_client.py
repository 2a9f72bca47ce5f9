"""The asyncio client on a real engine: typed errors, unread events, closing from every side."""

from __future__ import annotations

import asyncio

import pytest

from nemostream.client import Client
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import EngineFull, StreamClosed, UnknownModel, UnsupportedChunk
from nemostream.protocol import Ended, Event, Final, Interim, Preflight, Usage
from tests.adapter.helpers import Clip, clip, eventually, within


def samples(speech: Clip):  # type: ignore[no-untyped-def]
    return speech.pcm.astype("f4") / 32768


async def test_a_reader_that_is_late_finds_every_final_and_only_the_newest_interim(engine: Engine) -> None:
    client = Client(engine)
    stream = await client.open(chunk_ms=160)
    speech = clip("tonight")
    stream.push(samples(speech)[: len(speech.pcm) * 2 // 3])
    await eventually(lambda: any(isinstance(event, Interim) for event in stream._unread))
    stream.push(samples(speech)[len(speech.pcm) * 2 // 3 :])
    first, second = stream.flush(), stream.flush()
    stream.close()
    await eventually(lambda: any(isinstance(event, Ended) for event in stream._unread))
    events = [event async for event in stream]
    assert [event.flush_id for event in events if isinstance(event, Final)][-2:] == [first, second]
    assert " ".join(e.text for e in events if isinstance(e, Final)).strip() == speech.text
    assert not [event for event in events if isinstance(event, (Interim, Preflight))], "the finals replaced them"
    assert sum(event.samples for event in events if isinstance(event, Usage)) == len(speech.pcm)
    client.close()


async def test_refusals_are_typed(engine: Engine) -> None:
    full = Engine(EngineConfig(max_streams=1))
    full.load()
    client, other = Client(engine), Client(full)
    with pytest.raises(UnknownModel):
        await client.open(model="no-such-model")
    with pytest.raises(UnsupportedChunk):
        await client.open(chunk_ms=2000)
    await other.open()
    with pytest.raises(EngineFull) as refused:
        await other.open()
    assert refused.value.retry_after > 0
    assert (client.open_streams, other.open_streams) == (0, 1)
    client.close()
    other.close()
    full.close()


async def test_an_open_that_is_given_up_takes_no_row(engine: Engine) -> None:
    slow = Engine()  # its model is not loaded yet
    client = Client(slow)
    with pytest.raises(TimeoutError):
        await client.open(timeout=0.001)
    opening = asyncio.create_task(client.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    stream = await client.open()
    await eventually(lambda: slow.open_streams == 1 and client.open_streams == 1)
    stream.close()
    client.close()
    slow.close()


async def test_closing_the_client_ends_its_streams_and_frees_their_rows(engine: Engine) -> None:
    await eventually(lambda: engine.open_streams == 0)
    client = Client(engine)
    stream = await client.open()

    async def read() -> list[Event]:
        return [event async for event in stream]

    reading = asyncio.create_task(read())
    client.close()
    await within(reading)
    with pytest.raises(StreamClosed):
        stream.push(samples(clip("tonight")))
    with pytest.raises(StreamClosed):
        await client.open()
    await eventually(lambda: engine.open_streams == 0)


def test_a_loop_that_was_closed_with_streams_open_frees_their_rows(engine: Engine) -> None:
    async def abandon() -> None:
        stream = await Client(engine).open()
        stream.push(samples(clip("tonight")))

    asyncio.run(abandon())
    asyncio.run(eventually(lambda: engine.open_streams == 0))

"""What goes over the wire when captions come faster than the room should hear of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from livekit.agents import LanguageCode
from livekit.agents.stt import SpeechData

from livekit.plugins.nemo.events import POSSIBLE_LOSS
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.participant import join
from nemostream_agent.publisher import ATTRIBUTE_LOST, ATTRIBUTE_POSSIBLE_LOSS, INTERIM_PERIOD, CaptionPublisher
from tests.rooms.captioned import Reader


def data(text: str) -> SpeechData:
    return SpeechData(language=LanguageCode("en"), text=text)


@pytest.fixture
async def reader(server: LiveKitServer, room_name: str) -> AsyncIterator[Reader]:
    reader = await Reader.join(server, room_name)
    yield reader
    await reader.leave()


@pytest.fixture
async def publisher(server: LiveKitServer, room_name: str, reader: Reader) -> AsyncIterator[CaptionPublisher]:
    agent = await join(server, room_name, "captions", agent=True)
    publisher = CaptionPublisher(agent, "A", "TR_1")
    yield publisher
    await publisher.aclose()
    await agent.disconnect()


async def test_of_many_interims_five_a_second_are_sent_and_the_newest_wins(
    publisher: CaptionPublisher, reader: Reader
) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    for i in range(50):
        publisher.interim(data(f"word {i}"))
        await asyncio.sleep(0.02)
    captions = await reader.until(lambda all_: bool(all_) and all_[-1].text == "word 49")
    assert 2 <= len(captions) <= (loop.time() - started) / INTERIM_PERIOD + 1
    # A final waits for nothing, takes its interim's place, and opens the next segment.
    publisher.interim(data("never seen"))
    publisher.final(data("the end"))
    publisher.interim(data("again"))
    captions = await reader.until(lambda all_: any(caption.final for caption in all_))
    [final] = [caption for caption in captions if caption.final]
    before = captions[: captions.index(final)]
    assert (final.text, final.final, final.segment) == ("the end", True, before[0].segment)
    assert "never seen" not in [caption.text for caption in captions]


async def test_empty_texts_and_repeated_interims_are_not_sent(publisher: CaptionPublisher, reader: Reader) -> None:
    publisher.interim(data(""))
    publisher.interim(data("word"))
    await reader.until(lambda all_: len(all_) == 1)
    publisher.interim(data("word"))
    publisher.final(data(""))
    publisher.final(data("word"))
    captions = await reader.until(lambda all_: any(caption.final for caption in all_))
    assert [(caption.text, caption.final) for caption in captions] == [("word", False), ("word", True)]


async def test_the_first_final_behind_a_loss_says_so(publisher: CaptionPublisher, reader: Reader) -> None:
    publisher.lost(0.44)
    publisher.final(data("behind"))
    possible = data("word")
    possible.metadata = {POSSIBLE_LOSS: True}
    publisher.final(possible)
    captions = await reader.until(lambda all_: len(all_) == 2)
    assert [caption.attributes.get(ATTRIBUTE_LOST) for caption in captions] == ["0.4", None]
    assert [caption.attributes.get(ATTRIBUTE_POSSIBLE_LOSS) for caption in captions] == [None, "true"]

"""WHIP against the real gateway: an aiortc peer speaks, captions come back on its data channel and to viewers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import pytest

from bench.whip.client import SDP, WhipClient, new_offer
from bench.whip.inbox import WAIT_SECONDS, Inbox
from bench.whip.line import Line
from bench.whip.viewer import Viewer
from tests.clips import TEXTS
from tests.gateway.clients import by_file, pcm
from tests.gateway.process import GatewayProcess
from tests.whip.forms import EVENTS, check_form, check_order, check_pace
from tests.whip.talks import ORIGIN, error_rate, talk, text

FIRST, SECOND = "tomorrow", "refund"


@dataclass(frozen=True, slots=True)
class Spoken:
    """A session that is over: Anna said FIRST and SECOND; a viewer was there before her."""

    channel: Inbox
    viewer: Inbox
    created: httpx.Response
    began_at: float
    deleted: int


@pytest.fixture(scope="module")
def spoken(gateway: GatewayProcess) -> Spoken:
    async def speak() -> Spoken:
        async with (
            httpx.AsyncClient(base_url=gateway.http, timeout=WAIT_SECONDS) as http,
            Viewer(http, "spoken") as viewer,
        ):
            async with WhipClient(http, "spoken", talk(FIRST, SECOND), name="Anna") as anna:
                await anna.said()
                deleted = await anna.delete()
            await viewer.inbox.until(lambda: viewer.inbox.of("left"))
            return Spoken(anna.inbox, viewer.inbox, anna.created, anna.speaker.began_at, deleted.status_code)

    return asyncio.run(speak())


def told(inbox: Inbox) -> list[dict[str, Any]]:
    return [message.data for message in inbox.messages]


def test_the_answer_says_where_the_session_is(spoken: Spoken) -> None:
    created = spoken.created
    assert created.status_code == 201 and created.headers["content-type"].startswith("application/sdp")
    assert created.headers["location"].startswith("/whip/spoken/") and created.headers["etag"]
    assert "a=recvonly" in created.text and "a=sctp-port" in created.text
    assert spoken.deleted == 200


def test_what_was_said_comes_as_text(spoken: Spoken) -> None:
    wanted = text(FIRST, SECOND)
    by_files = " ".join(by_file(pcm(name)) for name in (FIRST, SECOND))
    assert error_rate(wanted, spoken.channel.text()) <= 1.5 * error_rate(wanted, by_files)


def test_words_are_shown_before_their_segment_is_final(spoken: Spoken) -> None:
    for final in spoken.channel.of("final"):
        interims = [m for m in spoken.channel.of("interim") if m["segment"] == final["segment"]]
        assert interims and interims[0]["sent"] < final["sent"]
        assert len(interims[0]["text"].split()) < len(final["words"]), "all at once is no interim"


def test_words_stand_where_they_were_said(spoken: Spoken) -> None:
    """Times count from the first sample; `at` is the same on the wall clock."""
    first, second = spoken.channel.of("final")
    assert first["reason"] == "endpoint"
    pause = second["start"] - first["end"]
    assert 1.0 < pause < 3.0, f"1.5 s and what is quiet in the clips, not {pause}"
    for final in (first, second):
        # Sent when its packet was complete: up to 20 ms behind; and nothing is faster than light.
        assert 0 <= final["at"] - (spoken.began_at + final["start"]) < 1.0
        assert final["delay_ms"] is not None and final["sent"] - (spoken.began_at + final["end"]) > 0


def test_messages_have_their_form_and_order(spoken: Spoken) -> None:
    for inbox in (spoken.channel, spoken.viewer):
        check_order(told(inbox))
        check_pace(told(inbox))
    room = spoken.channel.of("room")[0]
    assert room["room"] == "spoken" and room["you"] in {m["speaker"] for m in spoken.channel.of("final")}
    assert {"id": room["you"], "name": "Anna"} in room["speakers"]
    assert {m["name"] for m in told(spoken.channel) if m["type"] in EVENTS} == {"Anna"}


def test_a_viewer_reads_what_the_speaker_reads(spoken: Spoken) -> None:
    channel, viewer = spoken.channel, spoken.viewer
    assert viewer.of("final") == channel.of("final")
    assert viewer.of("interim") and viewer.of("room") == [
        {"type": "room", "room": "spoken", "you": None, "speakers": []}
    ]
    you = channel.of("room")[0]["you"]
    for kind in ("joined", "left"):
        assert viewer.of(kind) == [{"type": kind, "speaker": you, "name": "Anna"}]


def test_finals_alone_have_an_id(spoken: Spoken) -> None:
    ids = [message.id for message in spoken.viewer.messages if message.data["type"] == "final"]
    assert all(ids) and len(set(ids)) == len(ids)
    assert all(message.id is None for message in spoken.viewer.messages if message.data["type"] != "final")


async def test_last_event_id_goes_on_behind_that_final(spoken: Spoken, http: httpx.AsyncClient) -> None:
    finals = [message for message in spoken.viewer.messages if message.data["type"] == "final"]
    async with Viewer(http, "spoken") as late, Viewer(http, "spoken", finals[0].id) as again:
        for viewer, wanted in ((late, finals), (again, finals[1:])):
            await viewer.inbox.until(lambda inbox=viewer.inbox, all=wanted: len(inbox.of("final")) >= len(all))
            assert [(m.id, m.data) for m in viewer.inbox.messages[1:]] == [(m.id, m.data) for m in wanted]


async def test_who_joins_is_told_what_was_said_before(spoken: Spoken, http: httpx.AsyncClient) -> None:
    """On the data channel too, and of a room that was empty for a while."""
    async with WhipClient(http, "spoken", talk("tonight"), name="Bob") as client:
        await client.inbox.until(lambda: len(client.inbox.of("final")) >= 2)
        assert client.inbox.of("final") == spoken.channel.of("final")
        await client.delete()


async def said(http: httpx.AsyncClient, room: str, clip: str, name: str, line: Line | None = None) -> Inbox:
    async with WhipClient(http, room, talk(clip), name=name, line=line) as client:
        await client.said()
        await client.delete()
    return client.inbox


async def test_two_rooms_of_several_speakers_and_viewers(http: httpx.AsyncClient) -> None:
    """Everybody hears all of the own room and nobody of the other. One of them offers no address of its own."""
    async with (
        Viewer(http, "kitchen") as one,
        Viewer(http, "kitchen") as two,
        Viewer(http, "Garage.2_a-b") as other,
    ):
        await asyncio.gather(
            said(http, "kitchen", "music", "Anna"),
            said(http, "kitchen", "tonight", "Bob", Line()),
            said(http, "Garage.2_a-b", "monday", "Cleo"),
        )
        for viewer, leaving in ((one, 2), (two, 2), (other, 1)):
            await viewer.inbox.until(lambda inbox=viewer.inbox, n=leaving: len(inbox.of("left")) == n)
            check_order(told(viewer.inbox))
    for viewer in (one, two):
        by_name: dict[str, list[str]] = {}
        for final in viewer.inbox.of("final"):
            by_name.setdefault(final["name"], []).append(final["text"])
        assert {name: " ".join(texts) for name, texts in by_name.items()} == {
            "Anna": TEXTS["music"],
            "Bob": TEXTS["tonight"],
        }
    assert other.inbox.text() == TEXTS["monday"] and {f["name"] for f in other.inbox.of("final")} == {"Cleo"}


async def test_the_end_of_a_session_makes_what_is_pending_final(http: httpx.AsyncClient) -> None:
    """With endpointing off nothing else would."""

    async def speak(room: str, delete: bool) -> None:
        async with Viewer(http, room) as viewer:
            async with WhipClient(http, room, talk("music"), name="Anna", endpointing_ms="0") as client:
                await client.said()
                assert client.inbox.of("interim") and not client.inbox.of("final")
                if delete:
                    await client.delete()
                    assert [f["reason"] for f in client.inbox.of("final")] == ["end"]
            await viewer.inbox.until(lambda: viewer.inbox.of("left"))
            (final,) = viewer.inbox.of("final")
            assert (final["text"], final["reason"]) == (TEXTS["music"], "end")

    await asyncio.gather(speak("deleted", True), speak("hung-up", False))


async def test_who_is_in_the_room_is_told_of_those_who_come_and_go(http: httpx.AsyncClient) -> None:
    async with WhipClient(http, "doors", talk("music"), name="  Anna \n B ") as anna:
        await anna.connected()
        await anna.inbox.until(lambda: anna.inbox.of("room"))
        async with WhipClient(http, "doors", talk("music")) as nameless:
            await nameless.connected()
            await nameless.inbox.until(lambda: nameless.inbox.of("room"))
            speakers = nameless.inbox.of("room")[0]["speakers"]
            await nameless.delete()
        await anna.inbox.until(lambda: anna.inbox.of("left"))
        left = [message["speaker"] for message in anna.inbox.of("left")]
        await anna.delete()
    assert "Anna B" in [speaker["name"] for speaker in speakers] and len(speakers) == 2
    other = nameless.inbox.of("room")[0]["you"]
    assert left == [other]
    assert other in [m["speaker"] for m in anna.inbox.of("joined")]


async def test_candidates_may_come_later(http: httpx.AsyncClient) -> None:
    """By PATCH. This client uses no address of the gateway's, so without its own being known there is no connection."""
    async with WhipClient(http, "trickle", talk("music"), trickle=True) as client:
        assert client.state != "connected"
        patched = await client.trickle()
        assert (patched.status_code, patched.content) == (204, b"")
        await client.connected()
        assert (await client.delete()).status_code == 200
        assert (await client.trickle()).status_code == 404
        assert (await client.delete()).status_code == 404


async def test_video_is_rejected_and_a_data_channel_is_not_needed(http: httpx.AsyncClient) -> None:
    for kinds, accepted in ((("audio", "video"), 2), (("audio",), 1), (("video", "audio", "audio"), 2)):
        created = await http.post("/whip/kinds", content=await new_offer(*kinds, channel=accepted > 1), headers=SDP)
        assert created.status_code == 201, created.text
        media = [line.split() for line in created.text.splitlines() if line.startswith("m=")]
        assert [m[0] for m in media[: len(kinds)]] == [f"m={kind}" for kind in kinds]
        open_kinds = [m[0] for m in media if m[1] != "0"]
        assert open_kinds == ["m=audio", "m=application"][:accepted]
        assert (await http.delete(created.headers["location"])).status_code == 200


Ask = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]


async def asked(http: httpx.AsyncClient, origin: str) -> httpx.Response:
    wants = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    return await http.options("/whip/kitchen", headers={"Origin": origin, **wants})


async def published(http: httpx.AsyncClient, origin: str) -> httpx.Response:
    created = await http.post("/whip/cors", content=await new_offer("audio"), headers={**SDP, "Origin": origin})
    await http.delete(created.headers["location"], headers={"Origin": origin})
    return created


async def misspoken(http: httpx.AsyncClient, origin: str) -> httpx.Response:
    return await http.post("/whip/cors", content="no SDP", headers={**SDP, "Origin": origin})


@pytest.mark.parametrize("ask", [asked, published, misspoken])
async def test_pages_of_a_named_origin_may_ask(http: httpx.AsyncClient, ask: Ask) -> None:
    response = await ask(http, ORIGIN)
    assert response.headers["access-control-allow-origin"] == ORIGIN
    if ask is asked:
        assert response.status_code in (200, 204)
        methods = {method.strip() for method in response.headers["access-control-allow-methods"].split(",")}
        assert {"POST", "PATCH", "DELETE"} <= methods
        headers = response.headers["access-control-allow-headers"].lower()
        assert "authorization" in headers and "content-type" in headers
    else:
        assert "location" in response.headers["access-control-expose-headers"].lower()
    other = await ask(http, "https://elsewhere.example.com")
    assert "access-control-allow-origin" not in other.headers


async def test_the_session_alone_ends_with_its_stream(http: httpx.AsyncClient, gateway: GatewayProcess) -> None:
    before = gateway.health()["active_streams"]
    async with WhipClient(http, "alone", talk("music")) as client:
        await client.connected()
        assert gateway.health()["active_streams"] == before + 1  # type: ignore[operator]
        await client.delete()
        assert gateway.health()["active_streams"] == before
    check_form(client.inbox.messages[0].data)

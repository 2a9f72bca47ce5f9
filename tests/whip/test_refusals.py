"""What the gateway does not take over WHIP: a typed answer each time, and nothing that was not foreseen."""

from __future__ import annotations

import asyncio
import datetime
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from livekit.api import AccessToken, VideoGrants

from bench.whip.client import FRAGMENT, SDP, Refused, WhipClient, new_offer
from bench.whip.inbox import WAIT_SECONDS
from bench.whip.line import Line
from bench.whip.viewer import Viewer
from tests.gateway.process import GatewayProcess
from tests.whip.talks import LOCAL, talk

KEY = "a-key-of-the-tests"
LIVEKIT = "APIkey", "a-secret-of-at-least-32-characters!!"
LIMIT = 64 << 10
AT_ONCE = 0.1
EXAMPLES = 200


@pytest.fixture(scope="module")
def offer() -> str:
    return asyncio.run(new_offer())


def told(response: httpx.Response, status: int, code: str | None = None) -> str:
    """The sentence of an answer of that status."""
    assert response.status_code == status, response.text
    answer = response.json()
    assert answer.keys() == {"detail", "code"} and answer["detail"] and "\n" not in answer["detail"]
    assert code in (None, answer["code"])
    return str(answer["detail"])


def without(offer: str, *beginnings: str) -> str:
    return "".join(line for line in offer.splitlines(keepends=True) if not line.startswith(beginnings))


BAD: dict[str, tuple[Any, str]] = {
    "empty": (lambda offer: "", "offer"),
    "a word": (lambda offer: "hello", "offer"),
    "JSON": (lambda offer: '{"type": "offer", "sdp": ""}', "offer"),
    "the session's lines alone": (lambda offer: offer[: offer.index("m=")], "audio"),
    "only video": (lambda offer: asyncio.run(new_offer("video")), "audio"),
    "only a data channel": (lambda offer: offer[: offer.index("m=")] + offer[offer.index("m=application") :], "audio"),
    "no Opus": (lambda offer: re.sub("opus/48000/2", "speex/48000", offer), "Opus"),
    "the track is not sent": (lambda offer: offer.replace("a=sendonly", "a=recvonly"), "recvonly"),
    "no fingerprint": (lambda offer: without(offer, "a=fingerprint"), "fingerprint"),
    "no setup": (lambda offer: without(offer, "a=setup"), "setup"),
    "no ice-ufrag": (lambda offer: without(offer, "a=ice-ufrag"), "ice-ufrag"),
    "no ice-pwd": (lambda offer: without(offer, "a=ice-pwd"), "ice-pwd"),
    "no rtcp-mux": (lambda offer: without(offer, "a=rtcp-mux"), "rtcp-mux"),
    "noise": (lambda offer: "".join(chr(33 + i * 7919 % 90) for i in range(60_000)), "offer"),
    "lines of noise": (lambda offer: "".join(f"a={i * 7919 % 1000}:x\r\n" for i in range(6000)), "audio"),
    "many media sections": (lambda offer: offer[: offer.index("m=")] + "m=\n" * 15_000, ""),
    "not UTF-8": (lambda offer: b"\xff\xfe" + offer.encode(), "UTF-8"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_offer_that_cannot_be_answered_is_said_to_be_so(gateway: GatewayProcess, offer: str, kind: str) -> None:
    make, about = BAD[kind]
    response = httpx.post(f"{gateway.http}/whip/bad", content=make(offer), headers=SDP, timeout=30)
    assert about.lower() in told(response, 400).lower()


def test_an_offer_that_is_cut_off_anywhere(gateway: GatewayProcess, offer: str) -> None:
    with httpx.Client(base_url=gateway.http, timeout=30) as http:
        for length in range(0, len(offer), 61):
            check_answer(http, offer[:length])


def check_answer(http: httpx.Client, body: str) -> None:
    """It is taken and the session is there, or it is said what is wrong."""
    response = http.post("/whip/bad", content=body.encode(), headers=SDP)
    if response.status_code == 201:
        assert http.delete(response.headers["location"]).status_code == 200
    else:
        told(response, 400)


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[str, int, str]]:
    """What to do to which lines of an offer."""
    scraps = st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            ["", "a=", "m=audio", "m=audio 9 X 1", "a=rtpmap:96 opus/48000/2", "a=mid:0", "a=group:BUNDLE"]
        ),
        st.sampled_from(["a=candidate:1 1 udp 1 127.0.0.1 9 typ host", "a=candidate:x", "a=fmtp:96 a=b;c", "a=ssrc:1"]),
        st.sampled_from(["a=sctp-port:x", "a=max-message-size:-1", "a=rtcp:x", "c=IN IP6 ::", "a=setup:actpass"]),
        st.integers(-(2**70), 2**70).map(lambda n: f"a=rtpmap:{n} opus/{n}"),
    )
    deeds = st.sampled_from(["drop", "double", "swap", "insert", "replace", "cut", "scramble"])
    return draw(st.lists(st.tuples(deeds, st.integers(0, 10_000), scraps), min_size=1, max_size=6))


def changed(offer: str, deeds: list[tuple[str, int, str]]) -> str:
    lines = offer.split("\r\n")
    for deed, where, scrap in deeds:
        i = where % len(lines)
        line = lines[i]
        if deed == "drop" and len(lines) > 1:
            del lines[i]
        elif deed == "double":
            lines.insert(i, line)
        elif deed == "swap":
            j = where // 100 % len(lines)
            lines[i], lines[j] = lines[j], lines[i]
        elif deed == "insert":
            lines.insert(i, scrap)
        elif deed == "replace":
            lines[i] = scrap
        elif deed == "cut":
            lines[i] = line[: where % (len(line) + 1)]
        else:
            at = where % (len(line) + 1)
            lines[i] = line[:at] + scrap + line[at + 1 :]
    return "\r\n".join(lines)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds=changes())
def test_an_offer_that_was_changed_anyhow(
    gateway: GatewayProcess, patient: httpx.Client, offer: str, deeds: list[tuple[str, int, str]]
) -> None:
    try:
        body = changed(offer, deeds)
        body.encode()
    except UnicodeEncodeError:  # a surrogate, which nobody can send
        return
    check_answer(patient, body)


@pytest.fixture(scope="module")
def patient(gateway: GatewayProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=30) as http:
        yield http


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.one_of(st.text(max_size=60), st.text(max_size=40).map("a=candidate:".__add__)), max_size=5))
def test_candidates_that_mean_nothing(patient: httpx.Client, session: str, lines: list[str]) -> None:
    body = "\r\n".join(lines).encode(errors="replace")
    response = patient.patch(session, content=body, headers=FRAGMENT)
    if response.status_code != 204:
        assert response.status_code in (400, 422), response.text


@pytest.fixture
def session(patient: httpx.Client, offer: str) -> Iterator[str]:
    """A session that nobody connects to."""
    location = patient.post("/whip/bad", content=offer, headers=SDP).headers["location"]
    yield location
    assert patient.delete(location).status_code == 200, "it is there still, whatever it was sent"


async def test_what_is_no_sdp_by_its_type(http: httpx.AsyncClient, offer: str, session: str) -> None:
    for kind in ("text/plain", "application/json", "application/trickle-ice-sdpfrag", "application/sdpx", ""):
        headers = {"Content-Type": kind} if kind else {}
        told(await http.post("/whip/types", content=offer.encode(), headers=headers), 415)
    for kind in ("application/sdp", "text/plain"):
        told(await http.patch(session, content="a=end-of-candidates", headers={"Content-Type": kind}), 415)
    taken = await http.post("/whip/types", content=offer, headers={"Content-Type": "Application/SDP; charset=utf-8"})
    assert taken.status_code == 201
    await http.delete(taken.headers["location"])


async def test_a_body_that_is_too_large(http: httpx.AsyncClient, offer: str, session: str) -> None:
    filler = "a=x:" + "y" * 60 + "\r\n"
    large = offer + filler * ((LIMIT - len(offer)) // len(filler))
    taken = await http.post("/whip/large", content=large, headers=SDP)
    assert len(large) <= LIMIT and taken.status_code == 201
    await http.delete(taken.headers["location"])

    async def in_parts() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield filler.encode() * 100

    for body in (large + filler, "x" * (8 << 20), in_parts()):
        content = body if isinstance(body, AsyncIterator) else body.encode()
        told(await http.post("/whip/large", content=content, headers=SDP), 413)
    told(await http.patch(session, content=filler * 2000, headers=FRAGMENT), 413)


async def test_names_of_rooms(http: httpx.AsyncClient, offer: str) -> None:
    for name in ("x", "A-z_0.9", "x" * 64):
        taken = await http.post(f"/whip/{name}", content=offer, headers=SDP)
        assert taken.status_code == 201 and taken.headers["location"].startswith(f"/whip/{name}/")
        await http.delete(taken.headers["location"])
    for name in ("x" * 65, "a%20b", "%C3%A4", "a%0Ab", "a$b", "%00"):
        assert "room" in told(await http.post(f"/whip/{name}", content=offer, headers=SDP), 400)
        assert "room" in told(await http.get(f"/rooms/{name}/captions"), 400)
    for name in ("a%2Fb", ""):
        assert (await http.post(f"/whip/{name}", content=offer, headers=SDP)).status_code in (400, 404, 405)


async def test_what_a_stream_cannot_have(http: httpx.AsyncClient, offer: str) -> None:
    for query in ({"chunk_ms": "7"}, {"chunk_ms": "x"}, {"endpointing_ms": "-1"}, {"model": "no-such-model"}):
        told(await http.post("/whip/options", params=query, content=offer, headers=SDP), 400)


async def test_a_session_that_is_not_there(http: httpx.AsyncClient) -> None:
    for place in ("/whip/x/nothing", "/whip/x/" + "A" * 22):
        told(await http.patch(place, content="a=end-of-candidates", headers=FRAGMENT), 404)
        told(await http.delete(place), 404)


async def test_methods_that_mean_nothing(http: httpx.AsyncClient, session: str) -> None:
    for method, place in (("GET", "/whip/x"), ("PUT", "/whip/x"), ("GET", session), ("POST", session)):
        assert (await http.request(method, place, headers=SDP)).status_code == 405
    assert (await http.post("/rooms/x/captions")).status_code == 405


async def test_an_ice_restart_is_not_to_be_had(http: httpx.AsyncClient, session: str, offer: str) -> None:
    """RFC 9725, 4.3.3: the client is told so, and its session goes on."""
    credentials = "a=ice-ufrag:newone\r\na=ice-pwd:another-password-of-22-letters\r\n"
    candidate = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n"
    for body in (credentials, credentials + candidate):
        told(await http.patch(session, content=body, headers={**FRAGMENT, "If-Match": "*"}), 422)
    own = "".join(f"{next(x for x in offer.splitlines() if x.startswith(name))}\r\n" for name in ("a=ice-u", "a=ice-p"))
    assert (await http.patch(session, content=own + candidate, headers=FRAGMENT)).status_code == 204


async def test_an_event_that_is_none_of_this_room(http: httpx.AsyncClient) -> None:
    for last in ("x", "-1", "9" * 30):
        told(await http.get("/rooms/x/captions", headers={"Last-Event-ID": last}), 400)


@pytest.fixture(scope="module")
def small() -> Iterator[GatewayProcess]:
    """Two places; keys, and tokens of a LiveKit server."""
    environment = {"NEMOSTREAM_API_KEYS": KEY, "LIVEKIT_API_KEY": LIVEKIT[0], "LIVEKIT_API_SECRET": LIVEKIT[1]}
    options = ("--max-streams", "2", "--livekit-tokens", "--drain-seconds", "600")
    with GatewayProcess(*LOCAL, *options, environment=environment) as running:
        yield running
        assert "Traceback" not in running.log()


def token(secret: str = LIVEKIT[1], ttl: float = 3600, **grants: Any) -> str:
    made = AccessToken(LIVEKIT[0], secret).with_identity("anna").with_ttl(datetime.timedelta(seconds=ttl))
    return made.with_grants(VideoGrants(**{"room_join": True, "room": "r", **grants})).to_jwt()


def client(gateway: GatewayProcess, credential: str | None) -> httpx.AsyncClient:
    headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
    return httpx.AsyncClient(base_url=gateway.http, headers=headers, timeout=WAIT_SECONDS)


STRANGERS = {
    "nothing": None,
    "another key": "not-the-key",
    "the key and more": KEY + "x",
    "an expired token": token(ttl=-3600),
    "a forged token": token(secret="another-secret-of-32-characters!!!!!"),
    "a token that is changed": token()[:-4] + "AAAA",
    "a token without the right to join": token(room_join=False),
    "a token that may not publish": token(can_publish=False),
}


@pytest.mark.parametrize("kind", STRANGERS)
async def test_who_is_not_known_is_not_let_in(small: GatewayProcess, offer: str, kind: str) -> None:
    async with client(small, STRANGERS[kind]) as http:
        told(await http.post("/whip/keys", content=offer, headers=SDP), 401, "unauthorized")
        told(await http.get("/rooms/keys/captions"), 401, "unauthorized")
    assert small.health()["active_streams"] == 0


@pytest.mark.parametrize("credential", [KEY, token()], ids=["a key", "a token"])
async def test_who_is_known_is_let_in(small: GatewayProcess, offer: str, credential: str) -> None:
    async with client(small, credential) as http, Viewer(http, "keys"):
        taken = await http.post("/whip/keys", content=offer, headers=SDP)
        assert taken.status_code == 201
        assert (await http.delete(taken.headers["location"])).status_code == 200
    for place in (f"/whip/keys?access_token={credential}", f"/whip/keys?token={credential}"):
        async with client(small, None) as http:
            taken = await http.post(place, content=offer, headers=SDP)
            assert taken.status_code == 201 and credential not in taken.headers["location"]
            # The address of a session is long and random: who knows it may end it.
            assert len(taken.headers["location"].rpartition("/")[2]) >= 20
            assert (await http.delete(taken.headers["location"])).status_code == 200
    assert credential not in small.log()


async def test_one_too_many_is_told_so_at_once_and_then_let_in(small: GatewayProcess, offer: str) -> None:
    async with client(small, KEY) as http:
        async with WhipClient(http, "full", talk("music")) as one, WhipClient(http, "full", talk("music")) as two:
            took = []
            for _ in range(5):
                began = time.monotonic()
                refused = await http.post("/whip/full", content=offer, headers=SDP)
                took.append(time.monotonic() - began)
                assert "2 streams" in told(refused, 503, "full") and int(refused.headers["retry-after"]) >= 1
            assert min(took) < AT_ONCE
            for peer in (one, two):
                await peer.connected()
            await one.delete()
            async with WhipClient(http, "full", talk("music"), line=Line()) as three:
                await three.connected()
                await three.delete()
            await two.delete()
    assert small.health()["active_streams"] == 0


async def test_a_gateway_that_ends_takes_nobody_new_and_lets_the_others_speak(
    small: GatewayProcess, offer: str
) -> None:
    """The last one of this module: it ends the gateway."""
    async with client(small, KEY) as http, Viewer(http, "end") as viewer:
        async with WhipClient(http, "end", talk("music"), endpointing_ms="0") as speaker:
            await speaker.connected()
            small.terminate()
            while (await http.get("/health")).json()["status"] != "draining":
                pass
            refused = await http.post("/whip/end", content=offer, headers=SDP)
            told(refused, 503)
            assert int(refused.headers["retry-after"]) >= 1
            with pytest.raises(Refused):
                async with WhipClient(http, "end", talk("music")):
                    pass
            await speaker.said()
            # Told again, it waits for nobody; what was said is not lost.
            small.terminate()
            await viewer.inbox.until(lambda: viewer.inbox.of("final"))
            await speaker.inbox.until(lambda: speaker.inbox.over)
    assert viewer.inbox.text() == speaker.inbox.text() and len(viewer.inbox.text().split()) > 3
    assert await asyncio.to_thread(small.wait) == 0

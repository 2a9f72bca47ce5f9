"""What the pages ask the gateway for: what it can do, tokens of LiveKit, and the policy that they run under."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx2 as httpx
import jwt
import pytest

from nemostream_agent.gateway.ice import Ice
from nemostream_agent.gateway.livekit_tokens import VALID
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.participant import Viewer
from tests.gateway.process import GatewayProcess

ORIGIN = "https://pages.example"
TURN = ("turn:turn.example:3478?transport=udp", "stun:stun.example")


@pytest.fixture(scope="module")
def offering(server: LiveKitServer) -> Iterator[GatewayProcess]:
    """A gateway with a key, a LiveKit server, a TURN server and a page elsewhere. It needs no model for this."""
    options = [f"--ice-server={url}" for url in TURN] + ["--cors-origin", ORIGIN]
    secrets = {"NEMOSTREAM_API_KEYS": "key", "NEMOSTREAM_TURN_SECRET": "turn secret"}
    with GatewayProcess(*options, environment={**server.environment, **secrets}, ready=False) as running:
        yield running


KEY = {"Authorization": "Bearer key"}


def test_config_says_what_there_is_to_those_who_are_let_in(offering: GatewayProcess, server: LiveKitServer) -> None:
    assert httpx.get(f"{offering.http}/config.json").status_code == 401
    config = httpx.get(f"{offering.http}/config.json", headers=KEY).json()
    assert (config["livekit"], config["livekit_url"], config["max_streams"]) == (True, server.url, 256)
    turn, stun = config["ice_servers"]
    assert stun == {"urls": TURN[1]}
    assert turn["urls"] == TURN[0]


def test_turn_credentials_are_what_coturn_computes_from_the_shared_secret() -> None:
    (server,) = Ice((TURN[0],), secret="turn secret").for_browsers("key:anna")
    ends, who = server["username"].split(":")
    assert time.time() < int(ends) < time.time() + 86_400 and who == "key-anna"
    digest = hmac.new(b"turn secret", server["username"].encode(), hashlib.sha1).digest()
    assert server["credential"] == base64.b64encode(digest).decode()
    (fixed,) = Ice((TURN[0],), "me", "word").for_browsers("x")
    assert (fixed["username"], fixed["credential"]) == ("me", "word")


async def test_a_token_opens_the_livekit_room_that_it_names(offering: GatewayProcess, server: LiveKitServer) -> None:
    wanted = {"room": "tea", "name": "Anna Ü", "viewer": False}
    assert httpx.post(f"{offering.http}/livekit/token", json=wanted).status_code == 401
    given = httpx.post(f"{offering.http}/livekit/token", json=wanted, headers=KEY).json()
    assert given["url"] == server.url
    claims = jwt.decode(given["token"], server.secret, algorithms=["HS256"])
    assert claims["name"] == "Anna Ü" and claims["sub"].startswith("Anna Ü-")
    assert claims["video"]["room"] == "tea" and claims["video"]["canPublish"]
    assert 0 < claims["exp"] - time.time() <= VALID.total_seconds() + 60
    viewer = Viewer()
    await viewer.room.connect(server.url, given["token"])
    assert viewer.room.name == "tea" and viewer.room.local_participant.name == "Anna Ü"
    await viewer.leave()


def test_a_viewers_token_may_not_publish_and_is_not_seen(offering: GatewayProcess, server: LiveKitServer) -> None:
    wanted = {"room": "tea", "viewer": True}
    given = httpx.post(f"{offering.http}/livekit/token", json=wanted, headers=KEY).json()
    grants = jwt.decode(given["token"], server.secret, algorithms=["HS256"])["video"]
    assert grants["hidden"] and not grants["canPublish"] and not grants["canPublishData"] and grants["canSubscribe"]


@pytest.mark.parametrize("room", ["", "a b", "x" * 65, "../etc", 7, None])
def test_a_room_must_have_a_name(offering: GatewayProcess, room: object) -> None:
    answer = httpx.post(f"{offering.http}/livekit/token", json={"room": room}, headers=KEY)
    assert answer.status_code == 400 and "room" in answer.json()["detail"]


def test_without_a_livekit_server_there_are_no_tokens(gateway: GatewayProcess) -> None:
    answer = httpx.post(f"{gateway.http}/livekit/token", json={"room": "tea"})
    assert answer.status_code == 404 and "--livekit-url" in answer.json()["detail"]
    config = httpx.get(f"{gateway.http}/config.json").json()
    assert (config["livekit"], config["ice_servers"]) == (False, [])


def test_pages_elsewhere_may_call_where_that_is_allowed(offering: GatewayProcess, gateway: GatewayProcess) -> None:
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    allowed = httpx.options(f"{offering.http}/whip/tea", headers=asked)
    assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == ORIGIN
    told = httpx.get(f"{offering.http}/config.json", headers={**KEY, "Origin": ORIGIN})
    assert {"Location", "Retry-After"} <= set(told.headers["access-control-expose-headers"].split(", "))
    other = httpx.options(f"{offering.http}/whip/tea", headers={**asked, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-origin" not in httpx.options(f"{gateway.http}/whip/tea", headers=asked).headers


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (["--livekit-url", "ws://127.0.0.1:1"], "LIVEKIT_API_KEY"),
        (["--ice-server", "turn.example"], "no ICE server"),
    ],
)
def test_an_option_that_means_nothing_ends_the_command(option: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "nemostream_agent", "gateway", "--port", "0", *option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr

"""Who is let in: keys from a file and from the environment, LiveKit's tokens, and every way to bring them."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jwt
import pytest
import websockets
from livekit.api import AccessToken, VideoGrants
from starlette.requests import HTTPConnection

from nemostream.engine import Engine
from nemostream_agent.gateway.app import create_app
from nemostream_agent.gateway.auth import Auth, KeysError, digest, new_key, read_keys
from nemostream_agent.gateway.errors import Refusal
from nemostream_agent.gateway.settings import Limits, Settings
from tests.gateway.clients import read, ws
from tests.gateway.inside import serving

KEY, OTHER = new_key(), new_key()
LIVEKIT = "APIkey", "a-secret-of-at-least-32-characters!!"


def connection(query: str = "", subprotocols: list[str] | None = None, **headers: str) -> HTTPConnection:
    given = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "websocket", "path": "/ws", "query_string": query.encode(), "headers": given}
    return HTTPConnection({**scope, "subprotocols": subprotocols or [], "client": ("203.0.113.7", 1)})


def bearer(credential: str) -> HTTPConnection:
    return connection(authorization=f"Bearer {credential}")


def refused(auth: Auth, asked: HTTPConnection) -> str:
    with pytest.raises(Refusal) as error:
        auth.who(asked)
    assert (error.value.status, error.value.close, error.value.code) == (401, 1008, "unauthorized")
    assert error.value.headers == {"WWW-Authenticate": "Bearer"}
    return str(error.value)


def token(identity: str = "anna", ttl: float = 86_400, secret: str = LIVEKIT[1], **grants: Any) -> str:
    made = AccessToken(LIVEKIT[0], secret).with_identity(identity).with_ttl(datetime.timedelta(seconds=ttl))
    return made.with_grants(VideoGrants(**{"room_join": True, "room": "r", **grants})).to_jwt()


@pytest.mark.parametrize(
    "asked",
    [
        connection(authorization=f"Bearer {KEY}"),
        connection(authorization=f"bearer   {KEY} "),
        connection(authorization=f"Token {KEY}"),
        connection(x_api_key=KEY),
        connection(f"language=en&access_token={KEY}"),
        connection(f"token={KEY}"),
        connection(f"api_key={KEY}"),
        connection(subprotocols=["token", KEY]),
        connection(subprotocols=["bearer", KEY]),
    ],
    ids=["Bearer", "bearer", "Token", "X-API-Key", "access_token", "token", "api_key", "subprotocol", "subprotocol 2"],
)
def test_a_key_may_come_in_any_of_these_ways(asked: HTTPConnection) -> None:
    auth = Auth({digest(KEY): "anna"})
    assert auth.who(asked) == "key:anna"
    assert "not known" in refused(Auth({digest(OTHER): "bob"}), asked)


@pytest.mark.parametrize(
    "asked",
    [
        connection(),
        connection(authorization="Bearer "),
        connection(authorization=f"Basic {KEY}"),
        connection(authorization=KEY),
        connection("access_token="),
        connection(subprotocols=["token"]),
        connection(subprotocols=["json", KEY]),
    ],
)
def test_who_brings_nothing_is_told_what_to_bring(asked: HTTPConnection) -> None:
    assert "Authorization: Bearer" in refused(Auth({digest(KEY): "anna"}), asked)


def test_a_hash_is_no_key() -> None:
    refused(Auth({digest(KEY): "anna"}), bearer(digest(KEY)))


def test_without_keys_and_tokens_everybody_is_an_address() -> None:
    auth = Auth({})
    assert auth.open and auth.who(connection()) == "address:203.0.113.7"


def test_what_the_command_prints_is_a_line_of_the_file(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "nemostream_agent", "key", "anna"], capture_output=True, text=True, check=True
    )
    key = made.stderr.split()[-1]
    assert key not in made.stdout, "the file gives nothing away"
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n{made.stdout}bob:{digest(OTHER).upper()}\n")
    auth = Auth.of(Settings(api_keys_file=file, api_keys=(KEY,)))
    assert [auth.who(bearer(one)) for one in (key, OTHER, KEY)] == ["key:anna", "key:bob", "key:environment-1"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"anna:abc\n", "line 1 of"),
        (b"# ours\nanna " + b"0" * 64, "line 2 of"),
        (b":" + b"0" * 64, "line 1 of"),
        (b"# nobody yet\n", "holds no API key"),
        (b"", "holds no API key"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_file_that_is_none_opens_no_door(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(KeysError, match=says) as error:
        read_keys(file)
    assert "\n" not in str(error.value)


def test_the_command_ends_with_one_sentence_where_there_is_no_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nemostream_agent", "gateway", "--api-keys-file", str(tmp_path / "keys")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (sentence,) = done.stderr.splitlines()
    assert done.returncode == 1 and not done.stdout and "keys" in sentence and "Traceback" not in sentence


def test_a_token_that_may_publish_in_a_room_is_let_in() -> None:
    auth = Auth({digest(KEY): "bob"}, LIVEKIT)
    assert auth.who(bearer(token())) == "livekit:anna"
    assert auth.who(connection(f"access_token={token('eve')}")) == "livekit:eve"
    assert auth.who(bearer(KEY)) == "key:bob", "keys go on to count"


def unsigned() -> str:
    claims = jwt.decode(token(), options={"verify_signature": False})
    return jwt.encode(claims, None, algorithm="none")


def claims(**changed: Any) -> str:
    found = jwt.decode(token(), options={"verify_signature": False}) | changed
    return jwt.encode({k: v for k, v in found.items() if v is not None}, LIVEKIT[1], algorithm="HS256")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (token(ttl=-600), "ExpiredSignatureError"),
        (token(secret="another-secret-of-at-least-32-chars"), "InvalidSignatureError"),
        (unsigned(), "InvalidAlgorithmError"),
        (claims(iss="another"), "InvalidIssuerError"),
        (claims(exp=None), "MissingRequiredClaimError"),
        (claims(sub=None), "names nobody"),
        (claims(video="all"), "not valid"),
        (claims(video=None), "may not publish"),
        (token(room_join=False), "may not publish"),
        (token(can_publish=False), "may not publish"),
        ("a.b.c", "DecodeError"),
        (token()[:-4], "not valid"),
    ],
    ids="expired,secret,alg none,issuer,no expiry,nobody,odd,no grants,no room,no publish,garbage,cut".split(","),
)
def test_any_other_token_is_refused(made: str, says: str) -> None:
    sentence = refused(Auth({}, LIVEKIT), bearer(made))
    assert says in sentence and made not in sentence


async def test_a_door_with_a_key_is_shut_before_the_handshake_and_open_behind_it(engine: Engine) -> None:
    app = create_app(Settings(api_keys=(KEY, OTHER), limits=Limits(per_client=1), livekit=LIVEKIT), engine)
    async with serving(app) as url:
        for query in ("", f"?access_token={new_key()}"):
            with pytest.raises(websockets.InvalidStatus) as error:
                await websockets.connect(f"{url}/ws{query}")
            assert error.value.response.status_code == 401
            assert error.value.response.headers["WWW-Authenticate"] == "Bearer"
        # One stream for each: another connection of the same key is too many, wherever it comes from.
        async with websockets.connect(f"{url}/ws", subprotocols=["token", KEY]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "token", "a browser closes the connection if it is not answered"
            while app.state.service.house.open == 0:
                await socket.send(bytes(640))
            second = await ws(f"{url}/ws?access_token={KEY}", b"")
            assert second.code == 1013 and "one client" in second.reason
            for other in (OTHER, token("anna"), token("eve")):
                assert (await ws(f"{url}/ws?access_token={other}", b"")).code == 1000
            await socket.send("END")
            assert (await read(socket)).code == 1000
        assert (await ws(f"{url}/ws?access_token={KEY}", b"")).code == 1000
        async with httpx.AsyncClient() as client:
            for path in ("/health", "/metrics"):
                assert (await client.get(url.replace("ws", "http") + path)).status_code == 200, "these need no key"

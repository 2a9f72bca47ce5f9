"""Who a client is: API keys, and LiveKit's access tokens.

auth = Auth.of(settings)
who = auth.who(connection)       # "key:anna", "livekit:anna", or "address:203.0.113.7" where everybody is let in

Keys are long and random, so a plain SHA-256 of them is as good as a slow hash, and a file of hashes gives nothing away.
`python -m nemostream_agent key NAME` makes one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path

import jwt
from livekit.api import TokenVerifier
from starlette.requests import HTTPConnection

from nemostream.errors import NemostreamError

from .errors import Refusal, unauthorized
from .settings import Settings

BYTES = 32
QUERY = ("access_token", "token", "api_key")
"""Browsers cannot set headers of a WebSocket: there the credential is a query parameter, or a subprotocol behind one of
these words."""
SUBPROTOCOLS = ("token", "bearer")


class KeysError(NemostreamError):
    """The file of keys cannot be used."""


def new_key() -> str:
    return secrets.token_urlsafe(BYTES)


def digest(key: str) -> str:
    """How a key stands in the file: SHA-256, hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> dict[str, str]:
    """Names by hash. Lines are `name:sha256`; empty ones and those that begin with # do not count.

    Raises:
        KeysError: no such file, a line that is none, or no line at all: nobody could come in, or everybody.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"the file of API keys {path} cannot be read: {error}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        name, _, hashed = line.rpartition(":")
        if not name or len(hashed) != 64 or set(hashed.lower()) - set("0123456789abcdef"):
            raise KeysError(f"line {number} of {path} is not name:sha256; make one with `nemostream-agent key NAME`")
        found[hashed.lower()] = name
    if not found:
        raise KeysError(f"{path} holds no API key; make one with `nemostream-agent key NAME`, or leave the option out")
    return found


class Auth:
    """Args:
    keys: names by hash.
    livekit: an API key and its secret, whose tokens are let in.
    """

    def __init__(self, keys: Mapping[str, str], livekit: tuple[str, str] | None = None) -> None:
        self._keys = dict(keys)
        self._verifier = TokenVerifier(*livekit) if livekit else None

    @classmethod
    def of(cls, settings: Settings) -> Auth:
        """Raises KeysError."""
        keys = read_keys(settings.api_keys_file) if settings.api_keys_file else {}
        keys |= {digest(key): f"environment-{i}" for i, key in enumerate(settings.api_keys, 1)}
        return cls(keys, settings.livekit)

    @property
    def open(self) -> bool:
        """Everybody is let in."""
        return not self._keys and self._verifier is None

    def who(self, connection: HTTPConnection) -> str:
        """
        Raises:
            Refusal: no credential, or one that is not let in.
        """
        if self.open:
            return f"address:{connection.client.host if connection.client else 'unknown'}"
        credential = _credential(connection)
        if credential is None:
            raise unauthorized("an API key is needed: send it as Authorization: Bearer KEY")
        if (name := self._keys.get(digest(credential))) is not None:
            return f"key:{name}"
        if self._verifier is not None and credential.count(".") == 2:
            return f"livekit:{self._identity(credential)}"
        raise unauthorized("this API key is not known")

    def _identity(self, token: str) -> str:
        assert self._verifier is not None
        try:
            claims = self._verifier.verify(token)
        except (
            jwt.PyJWTError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ) as error:  # the last: claims of odd kinds
            raise unauthorized(f"this LiveKit token is not valid: {type(error).__name__}") from None
        grants = claims.video
        if grants is None or not grants.room_join or grants.can_publish is False:
            raise unauthorized("this LiveKit token may not publish in a room, so it may not be transcribed either")
        if not isinstance(claims.identity, str) or not claims.identity:
            raise unauthorized("this LiveKit token names nobody")
        return claims.identity


def subprotocol(connection: HTTPConnection) -> str | None:
    """What a WebSocket's handshake must answer where the credential came as a subprotocol."""
    offered = connection.scope.get("subprotocols") or []
    return offered[0] if len(offered) == 2 and offered[0].lower() in SUBPROTOCOLS else None


def _credential(connection: HTTPConnection) -> str | None:
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token") and value.strip():
        return value.strip()
    if key := connection.headers.get("x-api-key"):
        return key
    if subprotocol(connection):
        return str(connection.scope["subprotocols"][1])
    return next((connection.query_params[name] for name in QUERY if connection.query_params.get(name)), None)


__all__ = ["Auth", "KeysError", "Refusal", "digest", "new_key", "read_keys", "subprotocol"]

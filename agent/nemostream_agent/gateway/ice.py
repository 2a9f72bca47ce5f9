"""Which STUN and TURN servers are used, by the gateway and by the pages' browsers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any

from aiortc import RTCIceServer
from aiortc.rtcicetransport import parse_stun_turn_uri

TURN_SECONDS = 12 * 3600
"""For so long a credential that was made from the shared secret is good."""


@dataclass(frozen=True, slots=True)
class Ice:
    """
    Attributes:
        servers: URLs: stun:HOST[:PORT], turn:HOST[:PORT][?transport=udp|tcp], turns:...
        username, credential: for all TURN servers, where there is no `secret`.
        secret: shared with the TURN server, which takes time-limited credentials made from it (coturn's
            `use-auth-secret`).
        addresses: of this machine, on which browsers are told to find it; none: all but loopback.
    """

    servers: tuple[str, ...] = ()
    username: str = ""
    credential: str = ""
    secret: str = ""
    addresses: tuple[str, ...] = ()

    def for_browsers(self, who: str) -> list[dict[str, Any]]:
        """RTCConfiguration.iceServers."""
        return [self._server(url, who) for url in self.servers]

    def links(self, who: str) -> list[str]:
        """Values of Link headers, as WHIP has them (RFC 9725, 4.6)."""
        found = []
        for server in self.for_browsers(who):
            link = f'<{server["urls"]}>; rel="ice-server"'
            if "credential" in server:
                name, word = server["username"], server["credential"]
                link += f'; username="{name}"; credential="{word}"; credential-type="password"'
            found.append(link)
        return found

    def for_us(self) -> list[RTCIceServer]:
        return [RTCIceServer(**self._server(url, "gateway")) for url in self.servers]

    def _server(self, url: str, who: str) -> dict[str, Any]:
        if url.startswith("stun"):
            return {"urls": url}
        username, credential = self.username, self.credential
        if self.secret:
            # draft-uberti-behave-turn-rest: the user's name begins with the time at which it ends.
            username = f"{int(time.time()) + TURN_SECONDS}:{who.replace(':', '-')}"
            digest = hmac.new(self.secret.encode(), username.encode(), hashlib.sha1).digest()
            credential = base64.b64encode(digest).decode()
        return {"urls": url, "username": username, "credential": credential}


def check(url: str) -> None:
    """
    Raises:
        ValueError: it is no URL of a STUN or TURN server.
    """
    try:
        parse_stun_turn_uri(url)
    except ValueError:
        raise ValueError(f"{url!r} is no ICE server; give stun:HOST[:PORT] or turn:HOST[:PORT]") from None

"""Which protocol an address speaks: its path says so.

talk = talk_of("ws://host/v1/listen"); is_upload("http://host/transcribe")
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from .errors import ClientError, shown
from .listen import ListenTalk
from .op import OpTalk
from .talk import Talk
from .ws import WsTalk

TALKS: dict[str, Callable[[], Talk]] = {"/ws": WsTalk, "/v1/listen": ListenTalk}
UPLOADS = ("/transcribe", "/v1/audio/transcriptions")
KNOWN = "ws://host/ws, ws://host/, ws://host/v1/listen, http://host/transcribe, http://host/v1/audio/transcriptions"


def talk_of(url: str) -> Talk:
    """
    Raises:
        ClientError: no WebSocket protocol is known by that address.
    """
    parts = urlsplit(url)
    if parts.scheme in ("ws", "wss") and parts.hostname:
        path = parts.path.rstrip("/")
        if not path:
            return OpTalk()
        for end, talk in TALKS.items():
            if path.endswith(end):  # a proxy may have put something in front
                return talk()
    raise _unknown(url)


def is_upload(url: str) -> bool:
    """Whether a file is posted there.

    Raises:
        ClientError: no protocol is known by that address.
    """
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.hostname:
        if parts.path.endswith(UPLOADS):
            return True
        raise _unknown(url)
    talk_of(url)
    return False


def _unknown(url: str) -> ClientError:
    return ClientError("address", f"{shown(url)} names no protocol that is known here; there are {KNOWN}")

"""What keeps a client from its text: a sentence, and a word by which such cases are counted."""

from __future__ import annotations

import os

import aiohttp

REFUSED = "refused"
TRY_AGAIN = 1013
"""Close code of a server that is full."""


class ClientError(Exception):
    """
    Attributes:
        kind: "refused" (the server is full), "unreachable", "http 401", "closed 1011", "no answer", ...
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def shown(url: str) -> str:
    """Without its query, which may hold a key."""
    return url.partition("?")[0]


def unreachable(url: str, error: Exception) -> ClientError:
    number = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else None
    why = os.strerror(number) if number and number > 0 else ""
    return ClientError("unreachable", f"{shown(url)} cannot be reached: {why or error or type(error).__name__}")


def answered(url: str, status: int, said: str = "") -> ClientError:
    """By another HTTP status than it should be."""
    said = f": {said}" if said else ""
    if status in (429, 503):
        return ClientError(REFUSED, f"the server has no place now{said}")
    if status == 401:
        return ClientError("http 401", "the server wants an API key that it knows; give it with --key")
    if status in (403, 404, 405):
        return ClientError(f"http {status}", f"nothing answers at {shown(url)} (HTTP {status}); look at its path")
    return ClientError(f"http {status}", f"the server has answered with HTTP {status}{said}")


def closed(code: int | None, reason: str) -> ClientError:
    """Before the text was complete."""
    why = f": {reason}" if reason else ""
    if code == TRY_AGAIN:
        return ClientError(REFUSED, f"the server has no place now{why}")
    return ClientError(f"closed {code or 1006}", f"the server has closed the connection ({code or 1006}){why}")

"""What a client is told when it cannot have what it asked for: a sentence, an HTTP status, a WebSocket close code."""

from __future__ import annotations

import math

from nemostream import errors
from nemostream.protocol import Failed

TRY_AGAIN, TOO_BIG, POLICY, BAD_DATA, INTERNAL, GOING_AWAY, NORMAL = 1013, 1009, 1008, 1007, 1011, 1012, 1000
"""Close codes of RFC 6455 and its registry."""
RETRY_SECONDS = 1.0

_BAD_REQUEST = (
    errors.UnknownModel,
    errors.UnsupportedChunk,
    errors.UnsupportedLanguage,
    errors.KeytermsError,
    errors.DeviceError,
)
_BUSY = (errors.EngineFull, errors.EngineLost, errors.Overrun, errors.ModelMemory)


class Refusal(Exception):
    """The client is told so, and only this stream or request ends.

    Attributes:
        status: of HTTP.
        close: code of the WebSocket's end.
        code: a word for programs: "full", "unauthorized", "bad_request", ...
        retry_after: seconds; None where trying again is pointless.
    """

    def __init__(self, status: int, close: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.close, self.code, self.retry_after = status, close, code, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Of an HTTP answer."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


def full(message: str, retry_after: float = RETRY_SECONDS) -> Refusal:
    return Refusal(503, TRY_AGAIN, "full", message, retry_after)


def bad_request(message: str) -> Refusal:
    return Refusal(400, POLICY, "bad_request", message)


def bad_data(message: str) -> Refusal:
    """Audio, or a message, that cannot be understood."""
    return Refusal(400, BAD_DATA, "bad_data", message)


def too_big(message: str) -> Refusal:
    return Refusal(413, TOO_BIG, "too_big", message)


def unauthorized(message: str) -> Refusal:
    return Refusal(401, POLICY, "unauthorized", message)


def refusal(error: Exception) -> Refusal:
    """What an error of the engine means to a client."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, errors.AudioError):
        return bad_data(str(error))
    if isinstance(error, _BAD_REQUEST):
        return bad_request(str(error))
    if isinstance(error, TimeoutError):
        return full(str(error) or "the engine does not answer", RETRY_SECONDS)
    if isinstance(error, _BUSY):
        return full(str(error), getattr(error, "retry_after", RETRY_SECONDS))
    if isinstance(error, errors.NemostreamError):
        return Refusal(500, INTERNAL, "failed", str(error))
    return Refusal(500, INTERNAL, "failed", "the gateway failed; its log says why")


def failure(event: Failed) -> Refusal:
    """What the end of a stream means that the engine could not go on with."""
    if event.retryable or event.code == errors.EngineFull.__name__:
        return full(event.message)
    kind = getattr(errors, event.code, errors.NemostreamError)
    return refusal(kind(event.message))

"""The engine's errors as the framework's: everything that leaves a stream is an APIError, or the session goes deaf."""

from __future__ import annotations

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from nemostream import errors
from nemostream.protocol import Failed

STATUS = {
    errors.EngineFull.__name__: 503,
    errors.ModelMemory.__name__: 507,
    errors.DeviceError.__name__: 500,
    errors.Overrun.__name__: 503,
    errors.StepFailed.__name__: 500,
    errors.BundleError.__name__: 500,
    errors.CheckpointError.__name__: 500,
    errors.UnknownModel.__name__: 404,
    errors.UnsupportedChunk.__name__: 400,
    errors.UnsupportedLanguage.__name__: 400,
    errors.KeytermsError.__name__: 400,
    errors.AudioError.__name__: 400,
}
RETRYABLE = {errors.EngineFull.__name__, errors.Overrun.__name__, errors.StepFailed.__name__}
"""Of those with a status; an error without one (a lost engine) is a connection error, always worth another try."""


def api_error(error: Exception) -> APIError:
    """The APIError for whatever came out of the engine or of its client."""
    if isinstance(error, TimeoutError):
        return APITimeoutError(str(error))
    name = type(error).__name__
    if isinstance(error, errors.NemostreamError) and name in STATUS:
        return APIStatusError(str(error), status_code=STATUS[name], retryable=name in RETRYABLE)
    return APIConnectionError(str(error) or name)


def failed_error(event: Failed) -> APIError:
    """The APIError for a stream that failed; the engine knows whether opening it again may help."""
    if event.code in STATUS:
        return APIStatusError(event.message, status_code=STATUS[event.code], retryable=event.retryable)
    return APIConnectionError(event.message, retryable=event.retryable)

"""The errors of the engine: one tree, one clear sentence each (what, where, what to do)."""

from __future__ import annotations


class NemostreamError(Exception):
    """Root of every error that nemostream raises on purpose."""


class CheckpointError(NemostreamError):
    """A .nemo file cannot be read, or holds a model that cannot stream here."""


class BundleError(NemostreamError):
    """A bundle folder is missing, truncated, altered, or of another format version."""


class DownloadError(NemostreamError):
    """A model cannot be fetched from the hub, or what came is not what was announced."""


class UnknownModel(NemostreamError):
    """No model of that name: neither in the catalog nor a path."""


class UnsupportedChunk(NemostreamError):
    """The bundle does not offer that chunk size."""


class UnsupportedLanguage(NemostreamError):
    """The model does not speak that language."""


class KeytermsError(NemostreamError):
    """Terms that cannot be favoured: too many, too long, blank, not to be spelt, or the model has no tokenizer."""


class AudioError(NemostreamError):
    """Audio that cannot be used: not a sound file, wrong shape or dtype, NaN or infinite samples."""


class DeviceError(NemostreamError):
    """The device that was asked for is not here, or what it needs is not installed."""


class ModelMemory(NemostreamError):
    """The model alone needs more memory than models may take."""


class EngineFull(NemostreamError):
    """There is no row, no time or no memory for it now.

    Attributes:
        retry_after: seconds after which another try makes sense.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StreamClosed(NemostreamError):
    """The stream was closed, or never opened."""


class StepFailed(NemostreamError):
    """The model failed on this stream's audio; nothing of that step was committed."""


class SnapshotError(NemostreamError):
    """A saved state cannot be gone on with here: it is damaged, or of another model, chunk size, decoder or version."""


class Overrun(NemostreamError):
    """More audio waits than the engine can catch up with; the stream was closed so that others do not suffer."""


class EngineLost(NemostreamError):
    """The engine's process is gone or does not answer, and no other one could take its place."""


class VersionMismatch(NemostreamError):
    """The engine's process and this one speak different versions of the protocol."""


class WireError(NemostreamError):
    """Bytes that are no message of the protocol."""


class EngineTaken(NemostreamError):
    """Another process is the engine of that socket."""

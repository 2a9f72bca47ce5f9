"""A stream as plain data between two steps: what an engine needs to go on as if nothing had happened.

data = encode(core.snapshot(key))                    # at any step boundary
core.handle(owner, Open(stream=1, resume=data))

It holds the row of encoder and decoder too, so tokens and frames go on exactly, in this process or in another one that
has loaded the same bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_origin

import msgspec
import numpy as np

from nemostream.encoders import RowState
from nemostream.errors import SnapshotError
from nemostream.feed import FeedState
from nemostream.stream import StreamState

FORMAT = 5
"""Grows with every change of these classes: a snapshot of another format is refused."""


@dataclass(slots=True)
class Snapshot:
    """All of a stream.

    Attributes:
        bundle: hash of the model's bundle.
        precision: of the encoder, which the state depends on.
        chunk_frames: T.
    """

    bundle: str
    precision: str
    chunk_frames: int
    stream: StreamState
    feed: FeedState
    row: RowState

    def check(self, bundle: str, precision: str, chunk_frames: int) -> None:
        """Raises SnapshotError if it was taken with another model, precision or chunk size."""
        saved = (self.bundle, self.precision, self.chunk_frames)
        wanted = (bundle, precision, chunk_frames)
        for name, old, new in zip(("bundle", "precision", "chunk size"), saved, wanted, strict=True):
            if old != new:
                raise SnapshotError(f"the saved stream has {name} {old}, this one {new}; open it without resume")


def encode(snapshot: Snapshot) -> bytes:
    """Bytes of a snapshot: a format number and msgpack."""
    return FORMAT.to_bytes(2, "little") + _encoder.encode(snapshot)


def decode(data: bytes) -> Snapshot:
    """The snapshot that `encode` made bytes of.

    Raises:
        SnapshotError: bytes of another version, or of something else.
    """
    found = int.from_bytes(data[:2], "little")
    if found != FORMAT:
        raise SnapshotError(f"the saved stream has format {found}, this version reads {FORMAT}; open it without resume")
    try:
        return _decoder.decode(memoryview(data)[2:])
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise SnapshotError(f"the saved stream cannot be read: {error}; open it without resume") from error


def _plain(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return array.dtype.str, array.shape, np.ascontiguousarray(array).data
    raise NotImplementedError(type(array))


def _array(kind: Any, plain: Any) -> Any:
    if get_origin(kind) is not np.ndarray:
        raise NotImplementedError(kind)
    dtype, shape, data = plain
    array = np.frombuffer(data, np.dtype(dtype)).reshape(shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("an array holds NaN or infinite numbers")
    return array


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoder = msgspec.msgpack.Decoder(Snapshot, dec_hook=_array)

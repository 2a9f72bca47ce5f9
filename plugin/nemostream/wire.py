"""The bytes between a client process and the engine's process: length-prefixed msgpack over a Unix socket.

data = pack(Call(1, "stats"))                # what frames carry of messages and events: packing.py
frame = to_engine(await read_frame(reader))
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from typing import Annotated, Any, Union

import msgspec

from nemostream import errors
from nemostream.errors import EngineFull, NemostreamError, WireError
from nemostream.figures import Description

VERSION = 3
"""Of this file, packing.py and protocol.py. Two processes that differ do not talk (VersionMismatch)."""
MAX_FRAME = 64 << 20
"""Bytes. One snapshot of the largest models is about half of that."""
MAX_MESSAGES = 8192
"""Messages or events in a frame."""
PING = 0
"""Number of the calls, and of the replies that come unasked, by which both sides show that they live."""
LENGTH = 4
"""Bytes of a frame's length in front of it, little-endian."""

_Limit = msgspec.Meta(max_length=MAX_MESSAGES)
_Numbers = Annotated[list[int], _Limit]


class Hello(msgspec.Struct, tag=True):
    """The client's first frame. Its fields and those of Welcome and Goodbye never change their places."""

    version: int
    package: str
    pid: int


class Welcome(msgspec.Struct, tag=True):
    """The engine's answer. `spawned`: a client started it, so a client may end it when it hangs."""

    version: int
    package: str
    pid: int
    spawned: bool


class Goodbye(msgspec.Struct, tag=True):
    """The engine closes the connection, and why: the name of an error class and its sentence."""

    code: str
    message: str


class PushBlock(msgspec.Struct, tag=True, array_like=True):
    """Pushes of several streams. `pcm16`: `data` is int16, which these samples were made of; else float32."""

    streams: _Numbers
    at_samples: _Numbers
    lengths: _Numbers
    pcm16: bool
    data: memoryview


class Other(msgspec.Struct, tag=True, array_like=True):
    """Any other message, or an event."""

    kind: str
    body: msgspec.Raw


class Messages(msgspec.Struct, tag=True):
    parts: Annotated[list[Union[PushBlock, Other]], _Limit]  # noqa: UP007 (msgspec evaluates it)


class Events(msgspec.Struct, tag=True):
    parts: Annotated[list[Other], _Limit]


class Call(msgspec.Struct, tag=True):
    """A question that is not about a stream: "ping", "stats", "describe", or "load" with a model's name."""

    number: int
    name: str
    model: str | None = None


class Reply(msgspec.Struct, tag=True):
    """The answer to a Call: `value`, or `description`, or an error's class and sentence."""

    number: int
    value: dict[str, float] = {}
    code: str = ""
    message: str = ""
    description: Description | None = None


ToEngine = Union[Hello, Messages, Call]  # noqa: UP007
FromEngine = Union[Welcome, Goodbye, Events, Reply]  # noqa: UP007


def _plain(value: object) -> object:
    """A subclass of str, as LiveKit's LanguageCode is, goes as what it is."""
    if isinstance(value, str):
        return str(value)
    raise WireError(f"a message holds a {type(value).__name__}, which cannot be sent")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_to_engine = msgspec.msgpack.Decoder(ToEngine)
_from_engine = msgspec.msgpack.Decoder(FromEngine)


def encode(item: object) -> bytes:
    """Raises WireError if it cannot be sent."""
    return _encoder.encode(item)


def decode(decoder: msgspec.msgpack.Decoder[Any], body: bytes | memoryview | msgspec.Raw) -> Any:
    """Raises WireError if the bytes are not what `decoder` expects."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise WireError(f"a frame cannot be read: {one_line(error)}") from error


def package() -> str:
    """The version that is installed, for messages."""
    try:
        return importlib.metadata.version("livekit-plugins-nemo")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def pack(frame: ToEngine | FromEngine) -> bytes:
    """The frame with its length in front."""
    body = encode(frame)
    return len(body).to_bytes(LENGTH, "little") + body


def to_engine(body: bytes | memoryview) -> ToEngine:
    """A client's frame. Raises WireError if it is none."""
    return decode(_to_engine, body)  # type: ignore[no-any-return]


def from_engine(body: bytes) -> FromEngine:
    """An engine's frame. Raises WireError if it is none."""
    return decode(_from_engine, body)  # type: ignore[no-any-return]


def error(code: str, message: str) -> NemostreamError:
    """The error that a Goodbye or a Reply names."""
    kind = getattr(errors, code, None)
    if kind is EngineFull:
        return EngineFull(message, 1.0)
    if not (isinstance(kind, type) and issubclass(kind, NemostreamError)):
        kind = NemostreamError
    return kind(message)


def one_line(text: object) -> str:
    """What somebody else wrote, fit for a message: one line, and not a long one."""
    return repr(str(text))[1:-1][:200]


async def read_frame(reader: asyncio.StreamReader, limit: int = MAX_FRAME) -> bytes:
    """The body of the next frame. Raises WireError, asyncio.IncompleteReadError."""
    length = int.from_bytes(await reader.readexactly(LENGTH), "little")
    if length > limit:
        raise WireError(f"a frame of {length} bytes; the limit is {limit}")
    return await reader.readexactly(length)

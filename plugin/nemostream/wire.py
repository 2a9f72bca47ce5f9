"""The bytes between a client process and the engine's process: length-prefixed msgpack over a Unix socket.

data = pack(messages([Push(1, samples, 0), Flush(1, 7)]))
read_messages(to_engine(data[LENGTH:]))

One frame carries all messages of a process that came up in a tick, in order. Audio is the bulk of them: pushes that
stand next to each other share one block of samples.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Union

import msgspec
import numpy as np

from nemostream import protocol
from nemostream.errors import WireError
from nemostream.protocol import Event, Message, Push, Samples

VERSION = 1
"""Of everything in this file and in protocol.py. Two processes that differ do not talk (VersionMismatch)."""
MAX_FRAME = 64 << 20
"""Bytes. 30 s of audio for eight streams are 15 MB; a longer push is cut."""
LENGTH = 4
"""Bytes of a frame's length in front of it, little-endian."""
FULL_SCALE = np.float32(32768)


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

    streams: list[int]
    at_samples: list[int]
    lengths: list[int]
    pcm16: bool
    data: bytes


class Other(msgspec.Struct, tag=True, array_like=True):
    """Any other message, or an event."""

    kind: str
    body: msgspec.Raw


class Messages(msgspec.Struct, tag=True):
    parts: list[Union[PushBlock, Other]]  # noqa: UP007 (msgspec evaluates it, also on 3.9-style unions)


class Events(msgspec.Struct, tag=True):
    parts: list[Other]


class Call(msgspec.Struct, tag=True):
    """A question that is not about a stream: "ping", "stats", or "load" with a model's name."""

    number: int
    name: str
    model: str | None = None


class Reply(msgspec.Struct, tag=True):
    """The answer to a Call: `value`, or an error's class and sentence."""

    number: int
    value: dict[str, float] = {}
    code: str = ""
    message: str = ""


ToEngine = Union[Hello, Messages, Call]  # noqa: UP007
FromEngine = Union[Welcome, Goodbye, Events, Reply]  # noqa: UP007

_kinds = (
    *(protocol.Open, protocol.Gap, protocol.Flush, protocol.Mute, protocol.Unmute, protocol.Update, protocol.Close),
    *(protocol.Started, protocol.Interim, protocol.Preflight, protocol.Final, protocol.Usage, protocol.Checkpoint),
    *(protocol.Ended, protocol.Failed, protocol.Refused),
)
_encoder = msgspec.msgpack.Encoder()
_decoders = {kind.__name__: msgspec.msgpack.Decoder(kind) for kind in _kinds}
_to_engine = msgspec.msgpack.Decoder(ToEngine)
_from_engine = msgspec.msgpack.Decoder(FromEngine)


def package() -> str:
    """The version that is installed, for messages."""
    try:
        return importlib.metadata.version("livekit-plugins-nemo")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def pack(frame: ToEngine | FromEngine) -> bytes:
    """The frame with its length in front."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(LENGTH, "little") + body


def to_engine(body: bytes) -> ToEngine:
    """A client's frame. Raises WireError if it is none."""
    return _decode(_to_engine, body)  # type: ignore[no-any-return]


def from_engine(body: bytes) -> FromEngine:
    """An engine's frame. Raises WireError if it is none."""
    return _decode(_from_engine, body)  # type: ignore[no-any-return]


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The body of the next frame. Raises WireError, asyncio.IncompleteReadError."""
    length = int.from_bytes(await reader.readexactly(LENGTH), "little")
    if length > MAX_FRAME:
        raise WireError(f"a frame of {length} bytes; the limit is {MAX_FRAME}")
    return await reader.readexactly(length)


def messages(items: Iterable[Message]) -> Messages:
    """The frame of these messages, in order."""
    parts: list[PushBlock | Other] = []
    pushes: list[Push] = []
    for item in items:
        if isinstance(item, Push):
            pushes.append(item)
            continue
        if pushes:
            parts.append(_block(pushes))
            pushes = []
        parts.append(_other(item))
    return Messages([*parts, _block(pushes)] if pushes else parts)


def events(items: Iterable[Event]) -> Events:
    """The frame of these events, in order."""
    return Events([_other(e) for e in items])


def read_messages(frame: Messages) -> list[Message]:
    """What `messages` packed. Raises WireError."""
    found: list[Message] = []
    for part in frame.parts:
        if isinstance(part, Other):
            found.append(_body(part, Message))
        else:
            found += _pushes(part)
    return found


def read_events(frame: Events) -> list[Event]:
    """What `events` packed. Raises WireError."""
    return [_body(part, Event) for part in frame.parts]


def _block(pushes: Sequence[Push]) -> PushBlock:
    samples = np.concatenate([p.samples for p in pushes])
    with np.errstate(invalid="ignore"):  # NaN goes on as float32, for the engine to refuse
        pcm = np.clip(scaled := samples * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    # Most audio was int16 once: then half the bytes say the same.
    exact = bool((pcm == scaled).all())
    return PushBlock(
        [p.stream for p in pushes],
        [p.at_sample for p in pushes],
        [len(p.samples) for p in pushes],
        exact,
        (pcm if exact else samples).tobytes(),
    )


def _pushes(block: PushBlock) -> list[Message]:
    if len(block.data) % (2 if block.pcm16 else 4):
        raise WireError("a block of audio ends within a sample")
    if block.pcm16:
        samples: Samples = np.frombuffer(block.data, np.int16) / FULL_SCALE
    else:
        samples = np.frombuffer(block.data, np.float32)
    if not len(block.streams) == len(block.at_samples) == len(block.lengths):
        raise WireError("a block of audio does not say whose it is")
    if min(block.lengths, default=0) < 0 or sum(block.lengths) != len(samples):
        raise WireError("a block of audio is not as long as it says")
    ends = itertools.accumulate(block.lengths)
    rows = zip(block.streams, block.at_samples, block.lengths, ends, strict=True)
    return [Push(stream, samples[end - length : end], at) for stream, at, length, end in rows]


def _other(item: Any) -> Other:
    return Other(type(item).__name__, msgspec.Raw(_encoder.encode(item)))


def _body(part: Other, kind: Any) -> Any:
    decoder = _decoders.get(part.kind)
    if decoder is None:
        raise WireError(f"there is no message {part.kind!r}")
    found = _decode(decoder, part.body)
    if not isinstance(found, kind):
        raise WireError(f"{part.kind} does not go in this direction")
    return found


def _decode(decoder: Any, body: Any) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise WireError(f"a frame cannot be read: {error}") from error

"""The bytes between a client process and the engine's process: length-prefixed msgpack over a Unix socket.

data = pack(messages([Push(1, samples, 0), Flush(1, 7)]))
read_messages(to_engine(data[LENGTH:]))
for frame in message_frames(many): write(pack(frame))

One frame carries all messages of a process that came up in a tick, in order. Audio is the bulk of them: pushes that
stand next to each other share one block of samples.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, TypeVar, Union

import msgspec
import numpy as np

from nemostream import errors, protocol
from nemostream.errors import AudioError, EngineFull, NemostreamError, WireError
from nemostream.protocol import Event, Message, Push, Samples

VERSION = 1
"""Of everything in this file and in protocol.py. Two processes that differ do not talk (VersionMismatch)."""
MAX_FRAME = 64 << 20
"""Bytes. One snapshot of the largest models is about half of that."""
MAX_MESSAGES = 8192
"""Messages or events in a frame."""
FRAME_BYTES = 16 << 20
"""Of audio and snapshots, where a frame is cut."""
PING = 0
"""Number of the calls, and of the replies that come unasked, by which both sides show that they live."""
LENGTH = 4
"""Bytes of a frame's length in front of it, little-endian."""
FULL_SCALE = np.float32(32768)

_Item = TypeVar("_Item", Message, Event)
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
    data: bytes


class Other(msgspec.Struct, tag=True, array_like=True):
    """Any other message, or an event."""

    kind: str
    body: msgspec.Raw


class Messages(msgspec.Struct, tag=True):
    parts: Annotated[list[Union[PushBlock, Other]], _Limit]  # noqa: UP007 (msgspec evaluates it)


class Events(msgspec.Struct, tag=True):
    parts: Annotated[list[Other], _Limit]


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


def _plain(value: object) -> object:
    """A subclass of str, as LiveKit's LanguageCode is, goes as what it is."""
    if isinstance(value, str):
        return str(value)
    raise WireError(f"a message holds a {type(value).__name__}, which cannot be sent")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
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


def check(message: Message) -> None:
    """Raises AudioError or WireError if the message cannot be sent."""
    if not isinstance(message, Push):
        _encoder.encode(message)
    elif (
        not isinstance(message.samples, np.ndarray) or message.samples.dtype != np.float32 or message.samples.ndim != 1
    ):
        raise AudioError("push takes a float32 array of mono samples, shape (n,)")


def message_frames(items: Iterable[Message]) -> Iterator[Messages]:
    """As many frames as these messages need."""
    return (messages(part) for part in _cut(items))


def event_frames(items: Iterable[Event]) -> Iterator[Events]:
    """As many frames as these events need."""
    return (events(part) for part in _cut(items))


def read_messages(frame: Messages) -> list[Message]:
    """What `messages` packed. Raises WireError."""
    found: list[Message] = []
    for part in frame.parts:
        if isinstance(part, Other):
            found.append(_body(part, Message))
        else:
            found += _pushes(part)
        if len(found) > MAX_MESSAGES:
            raise WireError(f"a frame of more than {MAX_MESSAGES} messages")
    if any(m.stream < 0 for m in found):
        raise WireError("the number of a stream is 0 or more")
    return found


def read_events(frame: Events) -> list[Event]:
    """What `events` packed. Raises WireError."""
    return [_body(part, Event) for part in frame.parts]


def _cut(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    part: list[_Item] = []
    size = 0
    for item in items:
        more = _bytes(item)
        if part and (size + more > FRAME_BYTES or len(part) == MAX_MESSAGES):
            yield part
            part, size = [], 0
        part.append(item)
        size += more
    if part:
        yield part


def _bytes(item: Message | Event) -> int:
    if isinstance(item, Push):
        return item.samples.nbytes
    if isinstance(item, protocol.Open):
        return len(item.resume or b"")
    return len(item.snapshot) if isinstance(item, protocol.Checkpoint) else 0


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
        raise WireError(f"there is no message {one_line(part.kind)}")
    found = _decode(decoder, part.body)
    if not isinstance(found, kind):
        raise WireError(f"{part.kind} does not go in this direction")
    return found


def _decode(decoder: Any, body: Any) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise WireError(f"a frame cannot be read: {one_line(error)}") from error

"""Messages and events into frames and out of them.

data = wire.pack(messages([Push(1, samples, 0), Flush(1, 7)]))
read_messages(wire.to_engine(data[wire.LENGTH:]))
for frame in message_frames(many): write(wire.pack(frame))

One frame carries all messages of a process that came up in a tick, in order. Audio is the bulk of them: pushes that
stand next to each other share one block of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec
import numpy as np

from nemostream import protocol
from nemostream.errors import AudioError, WireError
from nemostream.protocol import FLOAT32, FULL_SCALE, INT16, Event, Message, Pcm, Push, Pushes, Samples
from nemostream.wire import MAX_MESSAGES, Events, Messages, Other, PushBlock, decode, encode, one_line

FRAME_BYTES = 16 << 20
"""Of audio and snapshots, where a frame is cut."""

_Item = TypeVar("_Item", Message, Event)

_kinds = (
    *(protocol.Open, protocol.Gap, protocol.Flush, protocol.Mute, protocol.Unmute, protocol.Update, protocol.Close),
    *(protocol.Started, protocol.Interim, protocol.Preflight, protocol.Final, protocol.Usage, protocol.Checkpoint),
    *(protocol.Ended, protocol.Failed, protocol.Refused),
)
_decoders = {kind.__name__: msgspec.msgpack.Decoder(kind) for kind in _kinds}


def messages(items: Iterable[Message]) -> Messages:
    """The frame of these messages, in order."""
    parts: list[PushBlock | Other] = []
    pushes: list[Push] = []
    for item in items:
        if isinstance(item, Push) and (not pushes or item.samples.dtype == pushes[0].samples.dtype):
            pushes.append(item)
            continue
        if pushes:
            parts.append(_block(Pushes.of(pushes)))
            pushes = []
        if isinstance(item, Push):
            pushes = [item]
        else:
            parts.append(_other(item))
    return Messages([*parts, _block(Pushes.of(pushes))] if pushes else parts)


def events(items: Iterable[Event]) -> Events:
    """The frame of these events, in order."""
    return Events([_other(e) for e in items])


def check(message: Message) -> None:
    """Raises AudioError or WireError if the message cannot be sent."""
    if not isinstance(message, Push):
        encode(message)
    elif not is_mono(message.samples):
        raise AudioError("push takes a float32 or int16 array of mono samples, shape (n,)")


def is_mono(samples: object) -> bool:
    """Whether a Push can carry it."""
    return isinstance(samples, np.ndarray) and samples.ndim == 1 and samples.dtype in (FLOAT32, INT16)


def message_frames(items: Iterable[Message]) -> Iterator[Messages]:
    """As many frames as these messages need."""
    return (messages(part) for part in _cut(items))


def event_frames(items: Iterable[Event]) -> Iterator[Events]:
    """As many frames as these events need."""
    return (events(part) for part in _cut(items))


def read_messages(frame: Messages) -> list[Message | Pushes]:
    """What `messages` packed, its pushes still together. Raises WireError."""
    found: list[Message | Pushes] = []
    total = 0
    for part in frame.parts:
        if isinstance(part, Other):
            message = _body(part, Message)
            total, lowest = total + 1, message.stream
            found.append(message)
        else:
            pushes = _pushes(part)
            total, lowest = total + len(pushes), min(pushes.streams, default=0)
            found.append(pushes)
        if lowest < 0:
            raise WireError("the number of a stream is 0 or more")
        if total > MAX_MESSAGES:
            raise WireError(f"a frame of more than {MAX_MESSAGES} messages")
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


def _block(pushes: Pushes) -> PushBlock:
    samples = pushes.samples
    pcm16 = samples.dtype == INT16
    if not pcm16:
        with np.errstate(invalid="ignore"):  # NaN goes on as float32, for the engine to refuse
            pcm = np.clip(scaled := samples * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
        # Most audio was int16 once: then half the bytes say the same.
        if pcm16 := bool((pcm == scaled).all()):
            samples = pcm
    data = samples.data.cast("B")
    return PushBlock(list(pushes.streams), list(pushes.at_samples), list(pushes.lengths), pcm16, data)


def _pushes(block: PushBlock) -> Pushes:
    if len(block.data) % (2 if block.pcm16 else 4):
        raise WireError("a block of audio ends within a sample")
    dtype: Any = INT16 if block.pcm16 else FLOAT32
    samples: Samples | Pcm = np.frombuffer(block.data, dtype)
    if not len(block.streams) == len(block.at_samples) == len(block.lengths):
        raise WireError("a block of audio does not say whose it is")
    if min(block.lengths, default=0) < 0 or sum(block.lengths) != len(samples):
        raise WireError("a block of audio is not as long as it says")
    return Pushes(block.streams, block.at_samples, block.lengths, samples)


def _other(item: Any) -> Other:
    return Other(type(item).__name__, msgspec.Raw(encode(item)))


def _body(part: Other, kind: Any) -> Any:
    decoder = _decoders.get(part.kind)
    if decoder is None:
        raise WireError(f"there is no message {one_line(part.kind)}")
    found = decode(decoder, part.body)
    if not isinstance(found, kind):
        raise WireError(f"{part.kind} does not go in this direction")
    return found

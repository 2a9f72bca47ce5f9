"""A look at the machine's engine from outside, without starting one: probe() for load figures and health checks."""

from __future__ import annotations

import asyncio
import os
import socket

from nemostream import wire
from nemostream.errors import WireError
from nemostream.figures import Description
from nemostream.rendezvous import Place

SECONDS = 1.0
"""An engine that takes longer to answer is not well."""
CALL = 1
"""Its number; the engine says unasked that it lives, under another (wire.PING)."""


def probe(place: Place | None = None, timeout: float = SECONDS) -> dict[str, float] | None:
    """What the engine is doing (Engine.stats); None if there is none, or if it does not answer in time."""
    place = place or Place.default()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        try:
            link.connect(str(place.socket))
            link.sendall(_question("stats"))
            while True:
                frame = wire.from_engine(_read(link))
                if isinstance(frame, wire.Reply) and frame.number == CALL:
                    return frame.value
                if isinstance(frame, wire.Goodbye):
                    return None
        except (OSError, WireError):
            return None


async def describe(place: Place | None = None, timeout: float = SECONDS) -> Description | None:
    """What the engine is and does (Engine.describe); None if there is none, or if it does not answer in time."""
    try:
        return await asyncio.wait_for(_described(place or Place.default()), timeout)
    except (TimeoutError, OSError, EOFError, WireError):
        return None


async def _described(place: Place) -> Description | None:
    reader, writer = await asyncio.open_unix_connection(place.socket)
    try:
        writer.write(_question("describe"))
        while not isinstance(frame := wire.from_engine(await wire.read_frame(reader)), wire.Goodbye):
            if isinstance(frame, wire.Reply) and frame.number == CALL:
                return frame.description
        return None
    finally:
        writer.transport.abort()


def _question(name: str) -> bytes:
    return wire.pack(wire.Hello(wire.VERSION, wire.package(), os.getpid())) + wire.pack(wire.Call(CALL, name))


def _read(link: socket.socket) -> bytes:
    length = int.from_bytes(_exactly(link, wire.LENGTH), "little")
    if length > wire.MAX_FRAME:
        raise WireError(f"a frame of {length} bytes")
    return _exactly(link, length)


def _exactly(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = link.recv(count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data

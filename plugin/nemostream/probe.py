"""A look at the machine's engine from outside, without starting one: probe() for load figures and health checks."""

from __future__ import annotations

import os
import socket

from nemostream import wire
from nemostream.errors import WireError
from nemostream.rendezvous import Place

SECONDS = 1.0
"""An engine that takes longer to answer is not well."""


def probe(place: Place | None = None, timeout: float = SECONDS) -> dict[str, float] | None:
    """What the engine is doing (Engine.stats); None if there is none, or if it does not answer in time."""
    place = place or Place.default()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        try:
            link.connect(str(place.socket))
            link.sendall(wire.pack(wire.Hello(wire.VERSION, wire.package(), os.getpid())))
            link.sendall(wire.pack(wire.Call(1, "stats")))
            while True:
                frame = wire.from_engine(_read(link))
                if isinstance(frame, wire.Reply):
                    return frame.value
                if isinstance(frame, wire.Goodbye):
                    return None
        except (OSError, WireError):
            return None


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

"""A client by hand, which may send what it likes; and waiting for what happens in other threads and processes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from types import TracebackType

from nemostream import packing, wire
from nemostream.protocol import Message
from nemostream.rendezvous import Place

HELLO = wire.Hello(wire.VERSION, "test", os.getpid())


class Raw:
    """A blocking socket at an engine.

    with Raw(place) as raw:
        raw.send(wire.Call(1, "stats"))
        raw.until(wire.Reply)
    """

    def __init__(self, place: Place, hello: wire.Hello | None = HELLO) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(place.socket))
        if hello is not None:
            self.send(hello)
            assert isinstance(self.read(), wire.Welcome)

    def send(self, frame: wire.ToEngine | wire.FromEngine | bytes) -> None:
        self._socket.sendall(frame if isinstance(frame, bytes) else wire.pack(frame))

    def tell(self, *messages: Message) -> None:
        for frame in packing.message_frames(messages):
            self.send(frame)

    def read(self, alive: bool = False) -> wire.FromEngine | None:
        """The next frame, signs of life only with `alive`; None: the engine has closed the connection."""
        deadline = time.monotonic() + 20
        while True:
            assert time.monotonic() < deadline, "the engine only shows that it lives"
            try:
                head = self._exactly(wire.LENGTH)
                frame = wire.from_engine(self._exactly(int.from_bytes(head, "little")))
            except (EOFError, OSError):
                return None
            if alive or not isinstance(frame, wire.Reply) or frame.number != wire.PING:
                return frame

    def until(self, kind: type[wire.FromEngine], number: int = 0) -> wire.FromEngine:
        """The first frame of that kind, and of that number if it is a Reply."""
        while True:
            frame = self.read()
            assert frame is not None, "the engine has closed the connection"
            if isinstance(frame, kind) and number == getattr(frame, "number", number):
                return frame

    def farewell(self) -> wire.Goodbye | None:
        """Read until the engine closes the connection: what it said last, if that was why."""
        last = None
        while (frame := self.read()) is not None:
            last = frame
        return last if isinstance(last, wire.Goodbye) else None

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.01)

"""Relay: the network between one participant and the server, where packets can be lost and the line can be cut.

async with Relay(server, Bursts()) as relay:      # a server with ice_lite=True
    room = await join(relay, name, identity)      # signalling and media pass through here
    relay.cut()                                   # from now on nothing does, in either direction

The signalling connection is passed on as it is, but for the port in the server's ICE candidates, which becomes ours.
Media follows: the participant sends it here, and since an ICE-lite server never checks paths of its own, there is no
other way. No rights are needed, as they would be for netem in a network namespace.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
from types import TracebackType

from nemostream_agent.livekit_server import LiveKitServer


class Bursts:
    """Gilbert's model of loss: packets are lost in runs of `mean_burst` on average, `loss` of all packets."""

    def __init__(self, loss: float = 0.05, mean_burst: float = 4.0, seed: int = 0) -> None:
        self._ends = 1 / mean_burst
        self._begins = self._ends * loss / (1 - loss)
        self._random = random.Random(seed)
        self._bad = False

    def __call__(self) -> bool:
        """Whether the next packet is lost."""
        self._bad = self._random.random() >= self._ends if self._bad else self._random.random() < self._begins
        return self._bad


class Relay:
    """Counts in `sent` and `lost` the audio packets that the participant sent and those of them that were lost."""

    def __init__(self, server: LiveKitServer, loses: Bursts | None = None) -> None:
        self.key, self.secret = server.key, server.secret
        self.sent = self.lost = 0
        self._server = server
        self._loses = loses
        self._cut = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ways: dict[tuple[str, int], _Way] = {}
        # A candidate of the server over UDP, or TCP, which would be a way round us.
        ports = server.udp_port, server.tcp_port
        self._candidate = re.compile(rb" ([0-9a-f.:]+) (?:%d|%d) typ " % ports)
        self._server_address: tuple[str, int] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._signalling.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        self._cut = True

    async def __aenter__(self) -> Relay:
        self._media, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _FromParticipant(self), local_addr=("0.0.0.0", 0)
        )
        self._signalling = await asyncio.start_server(self._signal, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signalling.close()
        self._media.close()
        for way in self._ways.values():
            way.close()
        for task in self._tasks:
            task.cancel()

    async def _signal(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_server = await asyncio.open_connection("127.0.0.1", self._server.port)
        for task in (self._pass(reader, to_server), self._pass(there, writer, rewrite=True)):
            kept = asyncio.create_task(task)
            self._tasks.add(kept)
            kept.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rewrite: bool = False) -> None:
        try:
            while data := await reader.read(1 << 16):
                if self._cut:
                    continue
                writer.write(self._candidate.sub(self._ours_instead, data) if rewrite else data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def from_participant(self, packet: bytes, address: tuple[str, int]) -> None:
        if self._cut:
            return
        if _is_audio(packet):
            self.sent += 1
            if self._loses is not None and self._loses():
                self.lost += 1
                return
        way = self._ways.get(address)
        if way is None:
            assert self._server_address is not None
            way = self._ways[address] = _Way(self, self._server_address, address)
        way.send(packet)

    def _ours_instead(self, candidate: re.Match[bytes]) -> bytes:
        host = candidate[1].decode()
        if "." in host:
            self._server_address = (host, self._server.udp_port)
        # The server's frames are not masked, so it is enough that the length stays: ports given out are five digits.
        ours = b" %s %d typ " % (candidate[1], self._media.get_extra_info("sockname")[1])
        assert len(ours) == len(candidate[0])
        return ours

    def to_participant(self, packet: bytes, address: tuple[str, int]) -> None:
        if not self._cut:
            self._media.sendto(packet, address)


class _FromParticipant(asyncio.DatagramProtocol):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._relay.from_participant(data, addr)


class _Way:
    """The server's side of one of the participant's sockets. Not a transport: those cannot be had without an await, and
    packets must stay in order."""

    def __init__(self, relay: Relay, server: tuple[str, int], participant: tuple[str, int]) -> None:
        self._relay, self._participant = relay, participant
        self._sock = socket.socket(type=socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.connect(server)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock, self._receive)

    def send(self, packet: bytes) -> None:
        self._sock.send(packet)

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _receive(self) -> None:
        self._relay.to_participant(self._sock.recv(1 << 16), self._participant)


def _is_audio(packet: bytes) -> bool:
    """RTP by RFC 7983's first byte, and not RTCP by its second (RFC 5761)."""
    return len(packet) > 1 and 128 <= packet[0] <= 191 and not 192 <= packet[1] <= 223

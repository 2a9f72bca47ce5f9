"""Line: the network between a WHIP client and the gateway, where packets are lost, late, doubled, or all cut off.

line = Line(Poor(loss=0.05))
WhipClient(http, room, talk, line=line)      # its media passes through here
line.cut()                                   # until line.mend() nothing does, in either direction

The client's offer goes without candidates and the port in the answer's becomes ours, so there is no way round. What is
lost, late or doubled are audio packets from the client to the gateway: ICE, DTLS and SCTP go through as they are.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from typing import Any

from tests.rooms.relay import Bursts

Impairment = Callable[[int], tuple[float, ...]]
"""Of audio packet n, counted from 0: seconds by which each of its copies is late. (0.0,): it passes; (): it is lost."""

CANDIDATE = re.compile(r"a=candidate:.*\r\n")
GATEWAY = re.compile(r"a=candidate:\S+ 1 udp \d+ (127\.0\.0\.1) (\d+) typ host", re.IGNORECASE)


def clean(number: int) -> tuple[float, ...]:
    return (0.0,)


class Poor:
    """Loses, delays and doubles at random, the same packets for the same seed.

    Args:
        loss: part of the packets.
        burst: mean run of lost packets; None: each is lost or not whatever becomes of the others.
        reorder: part of the packets that come `late` seconds late, behind others.
        double: part of the packets that come twice.
    """

    def __init__(
        self,
        loss: float = 0.0,
        burst: float | None = None,
        reorder: float = 0.0,
        late: float = 0.05,
        double: float = 0.0,
        seed: int = 0,
    ) -> None:
        # A run that ends with probability 1 - loss is what independent losses make.
        self._loses = Bursts(loss, burst or 1 / (1 - loss), seed)
        self._reorder, self._late, self._double = reorder, late, double
        self._random = random.Random(seed + 1)

    def __call__(self, number: int) -> tuple[float, ...]:
        lost, draw = self._loses(), self._random.random()
        if lost:
            return ()
        if draw < self._reorder:
            return (self._late,)
        return (0.0, 0.0) if draw < self._reorder + self._double else (0.0,)


class Line:
    """Counts the audio packets that the client sent: `sent`, and those of them that were `lost` (cuts included), `late`
    and `doubled`."""

    def __init__(self, impair: Impairment = clean) -> None:
        self.sent = self.lost = self.late = self.doubled = 0
        self._impair = impair
        self._cut = False
        self._client: Any = None
        self._ends: list[asyncio.DatagramTransport] = []

    def cut(self) -> None:
        self._cut = True

    def mend(self) -> None:
        self._cut = False

    def offer(self, sdp: str) -> str:
        """Without the client's addresses: the gateway answers to where packets come from, which is here."""
        return CANDIDATE.sub("", sdp).replace("a=end-of-candidates\r\n", "")

    async def answer(self, sdp: str) -> str:
        """With our port instead of the gateway's. From here on packets pass.

        Raises:
            ValueError: there is no candidate on 127.0.0.1.
        """
        found = GATEWAY.search(sdp)
        if found is None:
            raise ValueError(f"no candidate on 127.0.0.1 in {sdp!r}")
        loop = asyncio.get_running_loop()
        gateway = (found[1], int(found[2]))
        far, _ = await loop.create_datagram_endpoint(lambda: _End(self._from_gateway), remote_addr=gateway)
        near, _ = await loop.create_datagram_endpoint(lambda: _End(self._from_client), local_addr=("127.0.0.1", 0))
        self._near, self._far, self._ends = near, far, [near, far]
        host, port = near.get_extra_info("sockname")
        ours = f"a=candidate:1 1 udp 2130706431 {host} {port} typ host\r\n"
        return CANDIDATE.sub("", sdp).replace("a=end-of-candidates\r\n", ours + "a=end-of-candidates\r\n")

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def _from_gateway(self, packet: bytes, _: Any) -> None:
        if not self._cut and self._client is not None:
            self._near.sendto(packet, self._client)

    def _from_client(self, packet: bytes, address: Any) -> None:
        self._client = address
        if not is_audio(packet):
            self._pass(packet)
            return
        copies = self._impair(self.sent)
        self.sent += 1
        if self._cut or not copies:
            self.lost += 1
            return
        self.late += copies[0] > 0
        self.doubled += len(copies) > 1
        for late in copies:
            if late:
                asyncio.get_running_loop().call_later(late, self._pass, packet)
            else:
                self._pass(packet)

    def _pass(self, packet: bytes) -> None:
        if not self._cut and not self._far.is_closing():
            self._far.sendto(packet)


class _End(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, Any], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr)


def is_audio(packet: bytes) -> bool:
    """RTP by the first byte (RFC 7983), and not RTCP by the second (RFC 5761)."""
    return len(packet) > 1 and 128 <= packet[0] <= 191 and not 192 <= packet[1] <= 223

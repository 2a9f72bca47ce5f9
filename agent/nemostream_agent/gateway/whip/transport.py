"""ICE and DTLS by aiortc's own objects, put together as ORTC does, where RTP packets come out as they are.

aiortc's receiver would put them through a buffer that makes 100 ms of loss and 200 ms of lasting delay from one lost
packet, and decode what nobody asked for. What is protected in aiortc is touched in this file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aioice import Candidate, Connection
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceServer, RTCIceTransport
from aiortc.rtcicetransport import connection_kwargs

Received = Callable[[bytes], None]


class _Connection(Connection):
    """Host candidates of chosen addresses alone."""

    addresses: Sequence[str] = ()

    async def get_component_candidates(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        return await super().get_component_candidates(component, list(self.addresses) or addresses, timeout)


class Gatherer(RTCIceGatherer):
    """`addresses`: of this machine, on which peers are told to find us; none: all but loopback."""

    def __init__(self, servers: Sequence[RTCIceServer], addresses: Sequence[str]) -> None:
        super().__init__(iceServers=list(servers))
        self._connection = _Connection(ice_controlling=False, **connection_kwargs(list(servers)))
        self._connection.addresses = addresses


class MediaTransport(RTCDtlsTransport):
    """`on_rtp` and `on_rtcp` are called with each packet, decrypted."""

    def __init__(self, transport: RTCIceTransport, on_rtp: Received, on_rtcp: Received) -> None:
        super().__init__(transport, [RTCCertificate.generateCertificate()])
        # The answerer chooses, and the client need not wait: it begins.
        self._set_role("client")
        self._on_rtp, self._on_rtcp = on_rtp, on_rtcp

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        self._on_rtp(data)

    async def _handle_rtcp_data(self, data: bytes) -> None:
        self._on_rtcp(data)

    async def send_rtcp(self, data: bytes) -> None:
        """
        Raises:
            ConnectionError: not connected.
        """
        await self._send_rtp(data)

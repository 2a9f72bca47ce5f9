"""Peer: one browser's connection, from its offer to its end. Packets come in, data channels carry text out.

peer = Peer(read_offer(text), servers, addresses, on_packet)
answer = await peer.answer()
peer.connect()                        # goes on behind the answer
await peer.ended.wait(); await peer.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from aiortc import RTCDataChannel, RTCIceCandidate, RTCIceServer, RTCIceTransport, RTCSctpTransport
from aiortc.rtp import RtpPacket

from .offer import SCTP_PORT, Offer, write_answer
from .reports import Reports
from .transport import Gatherer, MediaTransport

logger = logging.getLogger("nemostream.gateway")

REPORT_SECONDS = 1.0
MAX_CHANNELS = 4
MAX_CANDIDATES = 24
"""Each one is an address to which connectivity checks are sent."""


class Peer:
    """
    Attributes:
        connected: set when packets may come.
        ended: set when the connection is lost, closed by the other side, or was never made.
        on_channel: called with each data channel that the other side opens.
    """

    def __init__(
        self,
        offer: Offer,
        servers: Sequence[RTCIceServer],
        addresses: Sequence[str],
        on_packet: Callable[[RtpPacket], None],
    ) -> None:
        self.connected = asyncio.Event()
        self.ended = asyncio.Event()
        self.on_channel: Callable[[RTCDataChannel], None] = lambda channel: None
        self._offer, self._on_packet = offer, on_packet
        self._gatherer = Gatherer(servers, addresses)
        self._ice = RTCIceTransport(self._gatherer)
        self._dtls = MediaTransport(self._ice, self._rtp, self._rtcp)
        self._sctp = RTCSctpTransport(self._dtls, SCTP_PORT) if offer.channel is not None else None
        self._channels: list[RTCDataChannel] = []
        self._reports = Reports()
        self._candidates = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None

    async def answer(self) -> str:
        """Gathers candidates: at once, or up to 5 s where a STUN or TURN server does not answer."""
        await self._gatherer.gather()
        fingerprints = [f for f in self._dtls.getLocalParameters().fingerprints if f.algorithm == "sha-256"]
        candidates = self._gatherer.getLocalCandidates()
        return write_answer(self._offer, self._gatherer.getLocalParameters(), candidates, fingerprints)

    def connect(self) -> None:
        """In the background; `connected` or `ended` says how it went."""
        self._dtls.on("statechange", self._changed)
        self._ice.on("statechange", self._changed)
        if self._sctp is not None:
            self._sctp.on("datachannel", self._opened)
        self._tasks.append(asyncio.create_task(self._connect(), name="whip.connect"))

    def add_candidates(self, candidates: Sequence[RTCIceCandidate]) -> None:
        """Ones that cannot be used are left out: TCP, other components, more than MAX_CANDIDATES.

        That they were the last is not passed on: ICE would fail at once where all of them are names that only the
        browser's own network can resolve, before the browser's checks have told its address.
        """
        for candidate in candidates:
            if self._candidates >= MAX_CANDIDATES:
                break
            self._candidates += 1
            if candidate.protocol.lower() != "udp" or candidate.component != 1:
                continue
            # In the background: to look up a name in the browser's network takes a second, in vain more often than not.
            self._tasks.append(asyncio.create_task(self._ice.addRemoteCandidate(candidate), name="whip.candidate"))

    def waiting(self) -> int:
        """Bytes that wait in the data channels."""
        return max((channel.bufferedAmount for channel in self._channels), default=0)

    async def close(self) -> None:
        """Nothing is left behind. May be called at any time, and again."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="whip.close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.ended.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._sctp is not None and self._sctp.state != "new":
            await self._sctp.stop()
        await self._dtls.stop()
        await self._ice.stop()
        self._dtls.remove_all_listeners()
        self._channels.clear()

    async def _connect(self) -> None:
        try:
            self.add_candidates(self._offer.candidates)
            await self._ice.start(self._offer.ice)
            if self._ice.state == "completed":
                await self._dtls.start(self._offer.dtls)
            if self._dtls.state != "connected":
                return
            self.connected.set()
            self._tasks.append(asyncio.create_task(self._report(), name="whip.report"))
            if self._sctp is not None:
                await self._sctp.start(*self._offer.sctp)
        except ConnectionError:
            pass
        except Exception:
            logger.exception("a peer could not be connected")
        finally:
            if not self.connected.is_set():
                self.ended.set()

    async def _report(self) -> None:
        while not self.ended.is_set():
            await asyncio.sleep(REPORT_SECONDS)
            if (report := self._reports.due()) is not None:
                with contextlib.suppress(ConnectionError):
                    await self._dtls.send_rtcp(report)

    def _changed(self) -> None:
        if self._dtls.state in ("closed", "failed") or self._ice.state in ("closed", "failed"):
            self.ended.set()

    def _opened(self, channel: RTCDataChannel) -> None:
        if len(self._channels) < MAX_CHANNELS:
            self._channels.append(channel)
            self.on_channel(channel)

    def _rtp(self, data: bytes) -> None:
        try:
            packet = RtpPacket.parse(data)
        except ValueError:
            return
        if packet.payload_type == self._offer.codec.payloadType:
            self._reports.rtp(packet)
            self._on_packet(packet)

    def _rtcp(self, data: bytes) -> None:
        self._reports.rtcp(data)

"""RTCP receiver reports (RFC 3550, 6.4.2): by them a sender knows of loss and jitter, and how long the way is.

reports = Reports()
reports.rtp(packet); reports.rtcp(data)      # whatever comes
data = reports.due()                         # about once a second
"""

from __future__ import annotations

import secrets
import time

from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RtcpPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpSrPacket, RtpPacket

CLOCK = 48_000


class Reports:
    """Of one sender."""

    def __init__(self) -> None:
        self._own_ssrc = secrets.randbits(32)
        self._ssrc: int | None = None
        self._statistics = StreamStatistics(CLOCK)
        self._sender_report: tuple[int, float] | None = None

    def rtp(self, packet: RtpPacket) -> None:
        if packet.ssrc != self._ssrc:
            self._ssrc, self._statistics, self._sender_report = packet.ssrc, StreamStatistics(CLOCK), None
        self._statistics.add(packet)

    def rtcp(self, data: bytes) -> None:
        try:
            packets = RtcpPacket.parse(data)
        except ValueError:
            return
        for packet in packets:
            if isinstance(packet, RtcpSrPacket) and packet.ssrc == self._ssrc:
                middle = packet.sender_info.ntp_timestamp >> 16 & 0xFFFFFFFF
                self._sender_report = middle, time.monotonic()

    def due(self) -> bytes | None:
        """The next report; None: nothing came yet."""
        if self._ssrc is None:
            return None
        last, since = 0, 0
        if self._sender_report is not None:
            last, at = self._sender_report
            since = min(int((time.monotonic() - at) * 65536), 0xFFFFFFFF)
        seen = self._statistics
        info = RtcpReceiverInfo(
            ssrc=self._ssrc,
            fraction_lost=seen.fraction_lost,
            packets_lost=seen.packets_lost,
            highest_sequence=(seen.max_seq or 0) + seen.cycles & 0xFFFFFFFF,
            jitter=seen.jitter & 0xFFFFFFFF,
            lsr=last,
            dlsr=since,
        )
        return bytes(RtcpRrPacket(ssrc=self._own_ssrc, reports=[info]))

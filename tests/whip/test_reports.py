"""Receiver reports say what came and what did not, in the form that senders read."""

from __future__ import annotations

import time

from aiortc.clock import current_ntp_time
from aiortc.rtp import RtcpPacket, RtcpRrPacket, RtcpSenderInfo, RtcpSrPacket, RtpPacket

from nemostream_agent.gateway.whip.reports import Reports

SSRC = 0xFEDCBA98


def packet(sequence: int, ssrc: int = SSRC) -> RtpPacket:
    return RtpPacket(payload_type=111, sequence_number=sequence & 0xFFFF, timestamp=960 * sequence, ssrc=ssrc)


def due(reports: Reports) -> RtcpRrPacket:
    data = reports.due()
    assert data is not None
    (report,) = RtcpPacket.parse(data)
    assert isinstance(report, RtcpRrPacket)
    return report


def test_before_anything_came_there_is_none() -> None:
    assert Reports().due() is None


def test_lost_packets_are_counted_since_the_last_report_and_in_all() -> None:
    reports = Reports()
    for sequence in range(65_500, 65_600):  # over the edge of 16 bits
        if sequence % 4:
            reports.rtp(packet(sequence))
    (info,) = due(reports).reports
    assert info.ssrc == SSRC
    assert info.packets_lost == 24, "the first one that came is where counting begins"
    assert 0.2 < info.fraction_lost / 256 < 0.26
    assert info.highest_sequence == 65_599, "with the round in the upper half"
    for sequence in range(65_601, 65_700):
        reports.rtp(packet(sequence))
    (info,) = due(reports).reports
    assert (info.packets_lost, info.fraction_lost) == (25, 256 // 100)


def test_a_sender_learns_its_round_trip() -> None:
    """From its own clock as it stood in its report, and how long ago that was (RFC 3550, 6.4.1)."""
    reports = Reports()
    reports.rtp(packet(1))
    ntp = current_ntp_time()
    info = RtcpSenderInfo(ntp_timestamp=ntp, rtp_timestamp=0, packet_count=1, octet_count=1)
    reports.rtcp(bytes(RtcpSrPacket(ssrc=SSRC, sender_info=info)))
    began = time.monotonic()
    (told,) = due(reports).reports
    assert told.lsr == ntp >> 16 & 0xFFFFFFFF
    assert 0 <= told.dlsr / 65536 <= time.monotonic() - began + 0.1


def test_another_stream_begins_at_nothing() -> None:
    reports = Reports()
    for sequence in (1, 2, 9):
        reports.rtp(packet(sequence))
    reports.rtp(packet(40_000, ssrc=7))
    (info,) = due(reports).reports
    assert (info.ssrc, info.packets_lost, info.lsr) == (7, 0, 0)


def test_garbage_is_nothing() -> None:
    reports = Reports()
    reports.rtp(packet(1))
    for data in (b"", b"\x80", b"\xff" * 40, bytes(8)):
        reports.rtcp(data)
    assert due(reports).reports[0].lsr == 0

"""The line that loses packets, and the client that speaks by the clock: what other tests take for granted."""

from __future__ import annotations

import asyncio
import time
from itertools import groupby

import httpx2 as httpx
import pytest

from bench.whip.client import WhipClient
from bench.whip.line import Line, Poor, is_audio
from bench.whip.talk import PACKET_SECONDS
from tests.whip.talks import talk

MANY = 50_000


def test_a_poor_line_loses_what_it_is_told_to_and_the_same_again() -> None:
    for loss, burst, mean in ((0.02, None, 1.02), (0.05, None, 1.05), (0.05, 4.0, 4.0)):
        fates = [Poor(loss, burst, seed=1)(n) for n in range(3)], [Poor(loss, burst, seed=1)(n) for n in range(3)]
        assert fates[0] == fates[1]
        poor = Poor(loss, burst, seed=1)
        lost = [not poor(n) for n in range(MANY)]
        runs = [len(list(run)) for is_lost, run in groupby(lost) if is_lost]
        assert sum(lost) / MANY == pytest.approx(loss, rel=0.15)
        assert sum(runs) / len(runs) == pytest.approx(mean, rel=0.1)
        assert [not Poor(loss, burst, seed=2)(n) for n in range(500)] != lost[:500]


def test_a_poor_line_delays_and_doubles_what_it_does_not_lose() -> None:
    poor = Poor(loss=0.1, reorder=0.1, late=0.04, double=0.2, seed=3)
    fates = [poor(n) for n in range(MANY)]
    assert set(fates) == {(), (0.0,), (0.04,), (0.0, 0.0)}
    for fate, part in (((), 0.1), ((0.04,), 0.09), ((0.0, 0.0), 0.18)):
        assert fates.count(fate) / MANY == pytest.approx(part, rel=0.15)


def test_audio_is_told_from_all_else_on_the_same_port() -> None:
    assert is_audio(bytes([128, 96])) and is_audio(bytes([0x90, 111 | 128]))
    stun, dtls, sender_report, receiver_report = bytes([0, 1]), bytes([22, 254]), bytes([128, 200]), bytes([129, 201])
    assert not any(map(is_audio, (stun, dtls, sender_report, receiver_report, b"", b"\x80")))


async def test_packets_are_sent_by_the_clock_and_pass_through_the_line(http: httpx.AsyncClient) -> None:
    packets = len(talk("music").packets)

    async def lossy() -> None:
        line = Line(Poor(loss=0.2, seed=1))
        async with WhipClient(http, "line", talk("music"), line=line) as client:
            await client.connected()
            await client.said()
            passed = time.monotonic() - client.speaker.began
            # On time on the whole, however late one of them was.
            assert passed == pytest.approx((packets + 1) * PACKET_SECONDS, abs=0.1 + max(client.speaker.lags))
            await client.delete()
        assert packets <= line.sent <= packets + 30
        assert 0.1 * line.sent < line.lost < 0.3 * line.sent

    async def cut() -> None:
        line = Line()
        async with WhipClient(http, "cut", talk("music"), line=line) as client:
            await client.connected()
            await client.inbox.until(lambda: client.inbox.of("interim"))
            line.cut()
            heard = len(client.inbox.messages)
            await client.said()
            assert len(client.inbox.messages) == heard and 0 < line.lost < line.sent
            line.mend()
            await client.delete()

    await asyncio.gather(lossy(), cut())

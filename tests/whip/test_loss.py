"""Packets that are lost, late, doubled or do not come for a while: what it costs, and that it costs nothing later.

All sessions speak at once, in rooms of their own, the same sentences. The clean one says what the others are held to.
`at` of a caption is when the gateway had the sample in which its first word begins; the client knows when it sent it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import jiwer
import pytest

from bench.whip.client import WhipClient
from bench.whip.inbox import WAIT_SECONDS, Inbox
from bench.whip.line import Impairment, Line, Poor, clean
from bench.whip.talk import PACKET_SECONDS
from nemostream.protocol import SAMPLE_RATE
from tests.gateway.process import GatewayProcess
from tests.whip.forms import check_order
from tests.whip.talks import error_rate, talk, text

SAID = ("monday", "tonight", "tomorrow", "refund")
BURST = range(60, 75)
"""Packets of the first sentence: 300 ms of it."""
CUT = range(50, 200)
"""Packets: 3 s, from within the first sentence into the second."""
RECOVERED_SECONDS = 2.0
NEAR_SECONDS = 0.05
"""Of what is the same delay."""
APART_SECONDS = 0.2
"""By which a word's place may differ: what is heard of it is not the same."""
BUSY = 3
"""Packets that a busy machine may be too late for."""


SPOKEN = range(len(talk(*SAID).packets) - 20)
"""Packets. Of those behind them the gateway may have none: the session ends."""


def missing(packets: range) -> Impairment:
    return lambda number: () if number in packets else (0.0,)


def poor(line: Poor) -> Impairment:
    return lambda number: line(number) if number in SPOKEN else (0.0,)


LINES: dict[str, Impairment] = {
    "clean": clean,
    "2-percent": poor(Poor(loss=0.02, seed=1)),
    "5-percent": poor(Poor(loss=0.05, seed=2)),
    "late-and-doubled": poor(Poor(reorder=0.1, late=0.04, double=0.1, seed=3)),
    "burst": missing(BURST),
    "cut": missing(CUT),
}


@dataclass(frozen=True, slots=True)
class Heard:
    """`facts`: what the gateway's log says of the session."""

    inbox: Inbox
    line: Line
    began_at: float
    facts: Mapping[str, Any]

    @property
    def words(self) -> list[dict[str, Any]]:
        return [word for final in self.inbox.of("final") for word in final["words"]]

    def delays(self, after: float = 0.0) -> list[float]:
        """Of the first words of segments that begin so late: seconds from their being said to when the gateway had
        them."""
        finals = [final for final in self.inbox.of("final") if final["start"] >= after]
        return [final["at"] - (self.began_at + final["start"]) for final in finals]


@pytest.fixture(scope="module")
def heard(gateway: GatewayProcess) -> dict[str, Heard]:
    async def speak(http: httpx.AsyncClient, name: str) -> tuple[str, Inbox, Line, float]:
        line = Line(LINES[name])
        async with WhipClient(http, f"loss-{name}", talk(*SAID), line=line) as client:
            await client.said()
            assert (await client.delete()).status_code == 200
        return name, client.inbox, line, client.speaker.began_at

    async def all_at_once() -> list[tuple[str, Inbox, Line, float]]:
        async with httpx.AsyncClient(base_url=gateway.http, timeout=WAIT_SECONDS) as http:
            return await asyncio.gather(*(speak(http, name) for name in LINES))

    spoken = asyncio.run(all_at_once())
    lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith("{")]
    facts = {line["room"]: line for line in lines if line["message"] == "stream" and "room" in line}
    return {name: Heard(inbox, line, began, facts[f"loss-{name}"]) for name, inbox, line, began in spoken}


LOSSY = [name for name in LINES if name != "clean"]
SCATTERED = ["2-percent", "5-percent", "burst"]


def test_what_was_lost_was_lost_on_the_line(heard: dict[str, Heard]) -> None:
    """The tests below would show nothing otherwise."""
    assert heard["clean"].line.lost == 0 and heard["clean"].facts["lost"] <= BUSY
    assert heard["burst"].line.lost == len(BURST) and heard["cut"].line.lost == len(CUT)
    assert heard["late-and-doubled"].line.late > 50 < heard["late-and-doubled"].line.doubled
    for name, least in (("2-percent", 10), ("5-percent", 30)):
        assert heard[name].line.lost >= least


@pytest.mark.parametrize("name", LOSSY)
def test_a_delay_does_not_stay(heard: dict[str, Heard], name: str) -> None:
    """Whatever was lost in the first sentence, the later ones are heard as soon as in the clean session. Where losses
    go on, some of the later ones are: a packet waits behind a hole for a moment, and no longer."""
    last = {"burst": BURST, "cut": CUT}.get(name, range(BURST.stop))[-1]
    later = heard[name].delays(last * PACKET_SECONDS + RECOVERED_SECONDS)
    assert len(later) >= 1
    assert min(later) < min(heard["clean"].delays()) + NEAR_SECONDS, later


@pytest.mark.parametrize("name", SCATTERED)
def test_a_lost_packet_costs_at_most_twice_its_audio(heard: dict[str, Heard], name: str) -> None:
    facts, lost = heard[name].facts, heard[name].line.lost
    seconds = (facts["filled"] + facts["gaps"]) / SAMPLE_RATE
    assert 0.5 * lost * PACKET_SECONDS <= seconds <= 2 * lost * PACKET_SECONDS
    assert facts["lost"] <= lost + BUSY


def test_late_and_doubled_packets_cost_nothing(heard: dict[str, Heard]) -> None:
    one, clean = heard["late-and-doubled"], heard["clean"]
    assert one.facts["lost"] < one.line.late / 3 and one.facts["gaps"] == 0, "a few, where the machine is too busy"
    assert one.facts["reordered"] > 20
    assert one.facts["received"] <= one.line.sent, "who came twice counts once: SRTP lets no packet through again"
    assert error_rate(clean.inbox.text(), one.inbox.text()) <= 0.1


@pytest.mark.parametrize("name", LOSSY)
def test_no_word_is_doubled(heard: dict[str, Heard], name: str) -> None:
    check_order([message.data for message in heard[name].inbox.messages])
    words = [word["text"] for word in heard[name].words]
    assert all(one != next_ for one, next_ in zip(words, words[1:], strict=False)), words


@pytest.mark.parametrize("name", LOSSY)
def test_words_stay_where_they_were_said(heard: dict[str, Heard], name: str) -> None:
    """Time that was lost is time all the same: it is filled, or told as a gap."""
    there, here = heard["clean"].words, heard[name].words
    aligned = jiwer.process_words(" ".join(w["text"] for w in there), " ".join(w["text"] for w in here)).alignments[0]
    pairs = [
        (there[chunk.ref_start_idx + i], here[chunk.hyp_start_idx + i])
        for chunk in aligned
        if chunk.type == "equal"
        for i in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]
    assert len(pairs) >= 12
    apart = sorted(abs(one["start"] - other["start"]) for one, other in pairs[-8:])
    assert apart[len(apart) // 2] <= APART_SECONDS, pairs[-8:]


@pytest.mark.parametrize(("name", "more"), [("2-percent", 0.2), ("5-percent", 0.3), ("burst", 0.2)])
def test_the_text_suffers_little(heard: dict[str, Heard], name: str, more: float) -> None:
    wanted = text(*SAID)
    assert error_rate(wanted, heard["clean"].inbox.text()) <= 0.1
    assert error_rate(wanted, heard[name].inbox.text()) <= error_rate(wanted, heard["clean"].inbox.text()) + more


def test_what_was_said_before_a_cut_becomes_final_in_it(heard: dict[str, Heard]) -> None:
    """Nothing but the silence of the line says so; and what is said afterwards comes."""
    cut = heard["cut"]
    first, *later = cut.inbox.of("final")
    begins, ends = CUT.start * PACKET_SECONDS, CUT.stop * PACKET_SECONDS
    assert first["text"] and begins - 0.5 < first["end"] < begins + 0.5
    assert first["sent"] < cut.began_at + ends, "before audio came again"
    (lost,) = cut.inbox.of("lost")
    assert lost["seconds"] == pytest.approx(ends - begins, abs=APART_SECONDS)
    assert lost["start"] == pytest.approx(begins, abs=APART_SECONDS)
    assert later and min(final["start"] for final in later) > ends - APART_SECONDS
    assert error_rate(text(*SAID[2:]), " ".join(final["text"] for final in later)) <= 0.5
    assert cut.facts["stalls"] == 1

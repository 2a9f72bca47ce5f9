"""A minute of speech through bad networks: every sample at its time, and no more lost than the network lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream.protocol import Pcm
from nemostream_agent.gateway.whip.opus import NotOpus, OpusDecoder, duration
from nemostream_agent.gateway.whip.placed import RATE, Packet, Stall
from nemostream_agent.gateway.whip.placement import HOLD, STALL, Placement
from nemostream_agent.gateway.whip.receiver import FILLED, AudioReceiver, Gap, Heard
from tests.clips import TEXTS, clip
from tests.examples import examples
from tests.whip.network import Talk, placed, talks
from tests.whip.packets import opus_packets, wide

PERIOD = 0.02
TICKS, SAMPLES = 960, 320
"""Of a packet."""
RESAMPLER = 16
"""Samples that come with the next ones."""
AS_LONG = {0: b"", 120: b"\x80", 480: b"\x90", 960: b"\x98", 2880: b"\x9b\x03", 5760: b"\x19"}
"""Packets of Opus that last so many ticks, with nothing in them."""
Arrivals = list[tuple[float, int]]
"""When a packet came, and which."""


@cache
def packets() -> list[bytes]:
    sentences = np.concatenate([wide(clip(name)) for name in sorted(TEXTS)])
    return opus_packets(np.tile(sentences, 1 + 60 * RATE // len(sentences))[: 60 * RATE])


@cache
def undisturbed() -> Pcm:
    decoder = OpusDecoder()
    return np.concatenate([*map(decoder.decode, packets()), decoder.finish()])


@dataclass(slots=True)
class Received:
    """What came out of a receiver, and when."""

    receiver: AudioReceiver
    heard: list[tuple[float, Heard]] = field(default_factory=list)

    def take(self, at: float, items: Sequence[Heard]) -> None:
        self.heard += [(at, item) for item in items]

    @property
    def gaps(self) -> list[Gap]:
        return [item for _, item in self.heard if isinstance(item, Gap)]

    @property
    def stalls(self) -> list[float]:
        return [at for at, item in self.heard if isinstance(item, Stall)]

    @property
    def sound(self) -> Pcm:
        """With zeros for gaps."""
        return np.concatenate([_sound(item) for _, item in self.heard])

    def delays(self, arrivals: Arrivals) -> dict[int, float]:
        """Of the packets that came in time: seconds until all of its sound was given out."""
        reached = np.cumsum([len(_sound(item)) for _, item in self.heard])
        ends = [(at, i, (i + 1) * SAMPLES - RESAMPLER) for at, i in arrivals]
        given = {i: self.heard[int(np.searchsorted(reached, end))][0] - at for at, i, end in ends}
        return {i: delay for i, delay in given.items() if delay >= 0}


def receive(arrivals: Arrivals, instead: dict[int, bytes] | None = None, **options: float) -> Received:
    """From a sender whose numbers wrap on the way, by an owner that ticks at deadlines."""
    received = Received(receiver := AudioReceiver(**options))
    for at, i in arrivals:
        while (due := receiver.deadline) is not None and due <= at:
            received.take(due, receiver.tick(due))
            assert receiver.deadline is None or receiver.deadline > due
        sequence, timestamp = (65_000 + i) & 0xFFFF, ((1 << 32) - 480_000 + i * TICKS) & 0xFFFFFFFF
        received.take(at, receiver.push(sequence, timestamp, (instead or {}).get(i, packets()[i]), at))
    received.take(arrivals[-1][0], receiver.finish())
    return received


def lossy(lost: float, jitter: float = 0.0, seed: int = 0) -> Arrivals:
    """A minute of packets, each of them lost, or late by up to `jitter` seconds; the first and the last one come."""
    rng = np.random.default_rng(seed)
    last = len(packets()) - 1
    keep = [i for i in range(last) if i == 0 or rng.random() >= lost] + [last]
    return sorted((50 + i * PERIOD + (rng.uniform(0, jitter) if 0 < i < last else 0.0), i) for i in keep)


def test_without_loss_all_is_given_out_at_once_and_nothing_made_up() -> None:
    arrivals = lossy(0.0)
    received = receive(arrivals)
    assert np.array_equal(received.sound, undisturbed())
    assert set(received.delays(arrivals).values()) == {0.0}
    assert received.receiver.facts() == {**dict.fromkeys(received.receiver.facts(), 0), "received": len(packets())}


@pytest.mark.parametrize("jitter", [0.0, 0.055])
@pytest.mark.parametrize("lost", [0.02, 0.05])
def test_a_lost_packet_costs_itself_and_no_lasting_delay(lost: float, jitter: float) -> None:
    """Packets that overtake each other cost nothing at all."""
    arrivals = lossy(lost, jitter)
    received = receive(arrivals)
    counts, missing = received.receiver.statistics, len(packets()) - len(arrivals)
    assert missing > 30 and (counts.reordered > 500) == bool(jitter)
    assert (counts.lost, counts.late, counts.filled, received.gaps) == (missing, 0, missing * SAMPLES, [])
    assert len(received.sound) == len(packets()) * SAMPLES
    _lies_where_it_was(received.sound)
    made, would = (x.reshape(-1, SAMPLES)[_missing(arrivals)].astype(float) for x in (received.sound, undisturbed()))
    assert 0.5 < np.abs(made).mean() / np.abs(would).mean() < 1.2
    delays = received.delays(arrivals)
    came = {i: at for at, i in arrivals}
    assert len(delays) == len(arrivals) and max(delays.values()) <= HOLD + 1e-9
    for i, delay in delays.items():
        # All in front of it are there or given up.
        if all(came.get(k, came[i]) <= came[i] and (k in came or i - k > HOLD / PERIOD + 3) for k in range(i - 8, i)):
            assert delay == 0.0


def test_holes_are_filled_up_to_a_length_and_are_gaps_beyond() -> None:
    longest = round(FILLED / PERIOD)
    holes = {100 * n: n for n in range(1, longest + 4)}
    gone = {i for start, n in holes.items() for i in range(start, start + n)}
    received = receive([(at, i) for at, i in lossy(0.0) if i not in gone])
    assert received.gaps == [Gap(n * SAMPLES, lost=True) for n in holes.values() if n > longest]
    counts = received.receiver.statistics
    assert counts.filled == sum(n for n in holes.values() if n <= longest) * SAMPLES
    assert counts.gaps == sum(gap.samples for gap in received.gaps)
    assert len(received.sound) == len(packets()) * SAMPLES
    _lies_where_it_was(received.sound)


def test_an_outage_is_one_stall_and_one_gap_and_over_with_the_packet_behind_it() -> None:
    arrivals = [(at, i) for at, i in lossy(0.0) if not 1000 <= i < 1150]
    received = receive(arrivals)
    assert received.gaps == [Gap(3 * 16_000, lost=True)]
    assert received.stalls == [50 + 999 * PERIOD + STALL]
    gap_at = [isinstance(item, Gap) for _, item in received.heard].index(True)
    assert sum(len(_sound(item)) for _, item in received.heard[:gap_at]) == 1000 * SAMPLES
    assert len(received.sound) == len(packets()) * SAMPLES
    delays = received.delays(arrivals)
    waited = {i for i, delay in delays.items() if delay > 0}
    assert waited == {i for at, i in arrivals if 0 <= at - (50 + 1150 * PERIOD) < HOLD - 1e-9}
    assert max(delays.values()) <= HOLD + 1e-9


def test_a_pause_of_the_sender_is_a_gap_that_lost_nothing() -> None:
    """DTX: the timestamp moves on, the sequence number does not."""
    for pause, gaps in ((0.06, []), (0.38, [Gap(6080, lost=False)]), (5.0, [Gap(80_000, lost=False)])):
        receiver = AudioReceiver()
        heard = [
            item
            for i in range(100)
            for later in [pause if i >= 50 else 0.0]
            for item in receiver.push(i, i * TICKS + round(later * RATE), packets()[i], i * PERIOD + later)
        ]
        sound = np.concatenate([_sound(item) for item in heard + receiver.finish()])
        assert len(sound) == 100 * SAMPLES + round(pause * 16_000)
        assert [item for item in heard if isinstance(item, Gap)] == gaps
        assert receiver.statistics.lost == 0
        assert not sound[50 * SAMPLES + 80 : 50 * SAMPLES + round(pause * 16_000) - 80].any()


def test_what_is_not_opus_is_as_good_as_lost() -> None:
    bad = {i: (b"\xff", b"\xff\x00", b"\x02\xff\xff", bytes([3, 63]) * 20)[i % 4] for i in range(10, 2900, 25)}
    received = receive(lossy(0.0), bad)
    counts = received.receiver.statistics
    assert (counts.refused, counts.filled, received.gaps) == (len(bad), len(bad) * SAMPLES, [])
    assert len(received.sound) == len(packets()) * SAMPLES
    _lies_where_it_was(received.sound)


def test_another_stream_of_the_same_track_goes_on() -> None:
    receiver = AudioReceiver()
    heard = [x for i in range(100) for x in receiver.push(i, i * TICKS, packets()[i], i * PERIOD)]
    heard += receiver.restart(2.5)
    heard += [x for i in range(100) for x in receiver.push(7 + i, 99 + i * TICKS, packets()[100 + i], 3 + i * PERIOD)]
    heard += receiver.finish()
    assert [item for item in heard if isinstance(item, Gap)] == [Gap(16_000, lost=False)]
    sound = np.concatenate([_sound(item) for item in heard])
    assert len(sound) == 200 * SAMPLES + 16_000


@settings(max_examples=examples(60, 1000), deadline=None)
@given(talks())
def test_samples_and_gaps_are_the_time_since_the_first_packet(talk: Talk) -> None:
    deliveries = [(at, packet.sequence, packet.timestamp, AS_LONG[packet.ticks]) for at, packet in talk.deliveries()]
    receiver = AudioReceiver()
    heard = [item for at, *packet in deliveries for item in receiver.push(*packet, at)] + receiver.finish()
    wanted = [item for _, item in placed(Placement(), talk.deliveries()) if not isinstance(item, Stall)]
    assert sum(len(_sound(item)) for item in heard) == sum(item.ticks for item in wanted) // 3


@settings(max_examples=examples(60, 1000), deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=40))
def test_garbage_ends_nothing_and_takes_the_time_that_it_says(payloads: list[tuple[bytes, bool]]) -> None:
    """Some of it lost on the way."""
    receiver, placement, timestamp, total, wanted = AudioReceiver(), Placement(), 0, 0, 0
    for i, (payload, came) in enumerate(payloads):
        try:
            ticks = duration(payload) if payload else 0
        except NotOpus:
            ticks, good = 960, False
        else:
            good = True
        if came:
            total += sum(len(_sound(item)) for item in receiver.push(i, timestamp, payload, timestamp / RATE))
        if came and good:
            items = placement.push(Packet(i, timestamp, payload, ticks), timestamp / RATE)
            wanted += sum(item.ticks for item in items if not isinstance(item, Stall))
        timestamp += ticks
    wanted += sum(item.ticks for item in placement.finish() if not isinstance(item, Stall))
    assert total + sum(len(_sound(item)) for item in receiver.finish()) == wanted // 3


def _missing(arrivals: Arrivals) -> list[int]:
    return sorted({*range(len(packets()))} - {i for _, i in arrivals})


def _lies_where_it_was(sound: Pcm) -> None:
    """Half of every second fits best where it was without loss, to two samples: what is made up has its own pitch."""
    for start in range(0, len(sound) - 8000, 16_000):
        wanted, found = (x[start : start + 8000].astype(float) for x in (undisturbed(), sound))
        if np.abs(wanted).mean() > 300:
            fits = np.correlate(found, wanted[100:-100])
            assert abs(int(fits.argmax()) - 100) <= 2
            assert np.corrcoef(wanted, found)[0, 1] > 0.4


def _sound(item: Heard) -> Pcm:
    if isinstance(item, np.ndarray):
        return item
    return np.zeros(item.samples if isinstance(item, Gap) else 0, np.int16)

"""Where packets lie in time, whatever the network and the sender do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream_agent.gateway.whip.arrival import AHEAD, SLEW
from nemostream_agent.gateway.whip.placed import RATE, Audio, Lost, Packet, Placed, Silence, Stall, Statistics
from nemostream_agent.gateway.whip.placement import DROPOUT, HELD, HOLD, STALL, Placement
from tests.examples import examples
from tests.whip.network import Sent, Talk, placed, talks

TICKS = 960


@settings(max_examples=examples(100, 1000), deadline=None)
@given(talks())
def test_audio_is_given_once_in_order_at_its_place_and_nothing_waits_longer_than_for_a_hole(talk: Talk) -> None:
    assert list(placed(Placement(), talk.deliveries())) == list(_expected(talk))


def _expected(talk: Talk) -> Iterator[tuple[float, Placed]]:
    """What must be given out, and when, by what is known only afterwards: of every packet, whether and when it came.

    A place is given away HOLD after the first packet behind it came. What came before that is given out as soon as all
    places in front are taken or given away.
    """
    came, away, taken = _came(talk), _given_away(talk), _taken(talk)
    audio = [i for i in taken if talk.sent[i].ticks]
    arrivals = sorted(came[i] for i in audio)
    out: list[tuple[float, int, list[Placed]]] = [
        (at + STALL, -1, [Stall()])
        for at, after in zip(arrivals, [*arrivals[1:], float("inf")], strict=False)
        if after >= at + STALL
    ]
    before: Sent | None = None
    for i in audio:
        sent = talk.sent[i]
        items: list[Placed] = []
        if before is not None:
            ticks = sent.start - (before.start + before.ticks)
            missing = sum(before.sequence < talk.sent[k].sequence < sent.sequence and k not in taken for k in range(i))
            lost = min(ticks, missing * before.ticks)
            items = [item for item in (Lost(lost), Silence(ticks - lost)) if item.ticks]
        at = max([came[i], *(min(came[k], away[k]) for k in range(taken[0], i))])
        assert at <= came[i] + HOLD
        out.append((at, i, [*items, Audio(sent.payload, sent.ticks)]))
        before = sent
    for at, _, items in sorted(out, key=lambda event: event[:2]):
        yield from ((at, item) for item in items)


def _came(talk: Talk) -> list[float]:
    return [min(sent.came, default=float("inf")) for sent in talk.sent]


def _given_away(talk: Talk) -> list[float]:
    """When the place of each packet is, unless it came before."""
    came = _came(talk)
    return [min(came[i + 1 :], default=float("inf")) + HOLD for i in range(len(came))]


def _taken(talk: Talk) -> list[int]:
    """The packets that came in time. Time begins with the first that comes."""
    came = _came(talk)
    if not came or min(came) == float("inf"):
        return []
    return [i for i, away in enumerate(_given_away(talk)) if i >= came.index(min(came)) and came[i] < away]


@settings(max_examples=examples(40, 500), deadline=None)
@given(talks(), st.lists(st.integers(9_900, 15_000), max_size=40))
def test_nothing_depends_on_when_tick_is_called(talk: Talk, ticks: list[int]) -> None:
    last = [1000.0]
    at_deadlines = [item for _, item in placed(Placement(), talk.deliveries())]
    whenever = placed(Placement(), talk.deliveries(), [ms / 1000 for ms in ticks] + last)
    assert [item for _, item in whenever] == at_deadlines
    assert [item for _, item in placed(Placement(), talk.deliveries(), last)] == at_deadlines


@settings(max_examples=examples(40, 500), deadline=None)
@given(talks())
def test_every_packet_is_counted_as_what_became_of_it(talk: Talk) -> None:
    placement = Placement()
    out = [item for _, item in placed(placement, talk.deliveries())]
    copies = [len(sent.came) for sent in talk.sent]
    taken = set(_taken(talk))
    lost = set(range(min(taken, default=0), max(taken, default=-1) + 1)) - taken
    counts = placement.statistics
    assert counts == Statistics(
        received=sum(copies),
        lost=len(lost),
        late=sum(n for i, n in enumerate(copies) if i not in taken),
        duplicate=sum(n - 1 for i, n in enumerate(copies) if i in taken),
        reordered=counts.reordered,
        stalls=out.count(Stall()),
    )


numbers = st.one_of(st.integers(-3, 70), st.integers(0, 0xFFFF))
stamps = st.one_of(st.integers(-3, 70).map(lambda n: n * TICKS), st.integers(0, 0xFFFFFFFF))
wild = st.tuples(numbers, stamps, st.sampled_from([0, 120, 960, 5760]), st.integers(0, 700), st.integers(0, 40))


@settings(max_examples=examples(100, 1000), deadline=None)
@given(st.lists(wild, max_size=150))
def test_a_liar_gets_neither_memory_nor_time_nor_a_word_twice(packets: Sequence[tuple[int, ...]]) -> None:
    placement, now, gaps, given, first = Placement(), 5.0, 0, [], None
    for i, (sequence, timestamp, ticks, ms, restarts) in enumerate(packets):
        now += ms / 1000
        packet = Packet(sequence & 0xFFFF, timestamp & 0xFFFFFFFF, i.to_bytes(2), ticks)
        items = placement.restart(now) if restarts == 40 else []
        for item in items + placement.push(packet, now):
            if isinstance(item, Audio):
                given.append(item.payload)
            elif not isinstance(item, Stall):
                gaps += item.ticks
        first = now if first is None and ticks else first
        passed = 0 if first is None else now - first
        assert gaps <= passed * RATE * (1 + 1 / SLEW) + AHEAD * RATE + 1
        assert placement.waiting <= HELD
        assert placement.deadline is None or now < placement.deadline <= now + STALL
    assert len(given) == len(set(given))


def test_a_packet_in_order_is_given_out_at_once_also_behind_any_loss() -> None:
    placement = Placement()
    for i in range(500):
        # One in ten, two of them together, and half a second.
        if i % 10 == 0 or i % 97 in (0, 1) or 200 <= i < 225:
            continue
        out = placement.push(_packet(i), 20.0 + i * 0.02)
        alone = all(k % 10 and k % 97 not in (0, 1) and not 200 <= k < 225 for k in range(max(0, i - 4), i))
        if alone:
            assert out == [Audio(_packet(i).payload, TICKS)]


def test_hours_with_losses_and_a_crystal_that_runs_off_need_no_resync() -> None:
    """Sequence numbers wrap, timestamps wrap, and the sender is 300 ppm fast or slow."""
    for drift in (1 + 300e-6, 1 - 300e-6):
        placement, ticks, count = Placement(), 5760, 2 * 3600 * 1000 // 120
        covered = given = 0
        for i in range(count):
            if i % 100 in (3, 4, 5) and i < count - 10:
                continue
            packet = Packet((60_000 + i) & 0xFFFF, ((1 << 32) - 1000 + i * ticks) & 0xFFFFFFFF, b"x", ticks)
            for item in placement.push(packet, i * 0.12 * drift):
                covered += 0 if isinstance(item, Stall) else item.ticks
                given += isinstance(item, Audio)
        assert covered == count * ticks
        assert given == count - placement.statistics.lost
        assert placement.statistics.resyncs == 0


def test_a_timestamp_that_claims_an_hour_is_not_believed() -> None:
    for claimed in (3600 * RATE, -3600 * RATE, -TICKS, 1 << 31, 2 * RATE):
        placement = Placement()
        _push_all(placement, [(_packet(i), i * 0.02) for i in range(10)])
        jumped = [(_packet(i, shift=claimed), i * 0.02 + 0.5) for i in range(10, 20)]
        out = _push_all(placement, jumped)
        assert out == [Stall(), Silence(round(0.5 * RATE)), *(Audio(p.payload, TICKS) for p, _ in jumped)]
        assert placement.statistics.resyncs == 1


def test_small_lies_do_not_add_up() -> None:
    """Each packet claims a pause of 0.9 s that was not."""
    placement = Placement()
    out = _push_all(placement, [(_packet(i, shift=i * 43_200), i * 0.02) for i in range(3000)])
    pauses = sum(item.ticks for item in out if isinstance(item, Silence))
    assert pauses < 2 * RATE
    assert sum(isinstance(item, Audio) for item in out) == 3000


def test_a_clock_that_stands_still_moves_nothing() -> None:
    placement = Placement()
    out = _push_all(placement, [(Packet(i, 77, i.to_bytes(2), TICKS), i * 0.02) for i in range(200)])
    assert sum(isinstance(item, Audio) for item in out) == 200
    assert sum(item.ticks for item in out if isinstance(item, Silence)) <= TICKS


def test_another_stream_goes_on_where_its_arrival_says() -> None:
    placement = Placement()
    _push_all(placement, [(_packet(i), i * 0.02) for i in (0, 1, 2, 4)])
    assert placement.restart(0.09) == [Lost(TICKS), Audio(_packet(4).payload, TICKS)]
    out = placement.push(Packet(9, 123_456, b"new", TICKS), 0.3)
    assert out == [Silence(round(0.3 * RATE) - 5 * TICKS), Audio(b"new", TICKS)]
    assert placement.statistics.resyncs == 1


def test_a_stream_that_begins_anew_unsaid_is_followed_and_a_stray_packet_is_not() -> None:
    for jump in (DROPOUT + 50, 40_000, 0x10000 - 5000):
        placement = Placement()
        _push_all(placement, [(_packet(i), i * 0.02) for i in range(10)])
        stray = Packet(10 + jump & 0xFFFF, 5, b"stray", TICKS)
        assert placement.push(stray, 0.2) == []
        assert placement.push(_packet(10), 0.2) == [Audio(_packet(10).payload, TICKS)]
        assert placement.statistics.stray == 1
        assert placement.push(stray, 0.22) == []
        after = Packet(11 + jump & 0xFFFF, 5 + TICKS, b"after", TICKS)
        out = placement.push(after, 0.24)
        assert [item for item in out if isinstance(item, Audio)] == [Audio(b"stray", TICKS), Audio(b"after", TICKS)]
        assert (placement.statistics.stray, placement.statistics.resyncs, placement.statistics.lost) == (1, 1, 0)


def test_padding_takes_a_number_and_no_time() -> None:
    placement = Placement()
    probes = [(Packet(i, 999, b"", 0), i * 0.02) for i in range(1, 4)]
    out = _push_all(placement, [(_packet(0), 0.0), *probes, (_packet(4, shift=-3 * TICKS), 0.02)])
    assert out == [Audio(_packet(i).payload, TICKS) for i in (0, 4)]
    assert placement.statistics.lost == 0


def test_a_stall_is_said_once_and_padding_does_not_end_it() -> None:
    placement = Placement()
    placement.push(_packet(0), 1.0)
    assert placement.deadline == 1.0 + STALL
    assert placement.push(Packet(1, 0, b"", 0), 1.3) == []
    assert placement.tick(1.39) == []
    assert placement.tick(1.0 + STALL) == [Stall()]
    assert placement.deadline is None
    assert placement.tick(100.0) == []
    assert placement.push(Packet(2, 0, b"", 0), 101.0) == []
    assert placement.deadline is None
    assert placement.push(_packet(3), 101.0) == [Silence(2 * TICKS), Audio(_packet(3).payload, TICKS)]
    assert placement.deadline == 101.0 + STALL
    quiet = Placement(stall=None)
    quiet.push(_packet(0), 1.0)
    assert quiet.deadline is None and quiet.tick(9.0) == []


def test_no_more_wait_than_are_allowed_to() -> None:
    placement = Placement()
    placement.push(_packet(0), 1.0)
    out: list[Placed] = []
    for i in range(2, HELD + 3):
        assert not out
        out = placement.push(_packet(i), 1.001)
    assert out == [Lost(TICKS), *(Audio(_packet(i).payload, TICKS) for i in range(2, HELD + 3))]
    assert placement.statistics.reordered == 0


def test_what_comes_in_time_behind_a_later_one_is_counted_as_reordered() -> None:
    placement = Placement()
    out = _push_all(placement, [(_packet(i), 1.0 + at / 1000) for at, i in enumerate([0, 2, 1, 5, 4, 3])])
    assert out == [Audio(_packet(i).payload, TICKS) for i in range(6)]
    assert placement.statistics.reordered == 3


def _packet(i: int, shift: int = 0) -> Packet:
    return Packet(i & 0xFFFF, (i * TICKS + shift) & 0xFFFFFFFF, i.to_bytes(4), TICKS)


def _push_all(placement: Placement, deliveries: Sequence[tuple[Packet, float]]) -> list[Placed]:
    return [item for packet, at in deliveries for item in placement.push(packet, at)]

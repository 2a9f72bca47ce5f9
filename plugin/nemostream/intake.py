"""Audio of many streams at once: what only has to go into their windows goes there; the rest is left to be looked at.

intake = Intake(seats, idle)
for pushes in runs(all_pushes):
    left, due = intake.take(pushes, now)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nemostream.group import Group
from nemostream.idle import IdleWatch
from nemostream.lanes import Counts
from nemostream.protocol import FLOAT32, INT16, SAMPLE_RATE, Push
from nemostream.seat import Key, Seat
from nemostream.seating import Seating

Sent = tuple[Key, Push]
"""A push, and the stream that it is for."""


def runs(pushes: Iterable[tuple[Hashable, Push]]) -> Iterator[list[Sent]]:
    """Pushes with their owners, in parts in which no stream comes twice: what it hears is in order."""
    run: list[Sent] = []
    keys: set[Key] = set()
    for owner, push in pushes:
        key = owner, push.stream
        if key in keys:
            yield run
            run, keys = [], set()
        keys.add(key)
        run.append((key, push))
    if run:
        yield run


@dataclass(slots=True)
class _Part:
    """Of one group."""

    seats: list[Seat] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)

    def only(self, which: Sequence[bool]) -> _Part:
        return _Part(list(itertools.compress(self.seats, which)), list(itertools.compress(self.sent, which)))


class Intake:
    """The way of audio into the lanes of all groups."""

    def __init__(self, seats: Seating, idle: IdleWatch) -> None:
        self._seats, self._idle = seats, idle

    def take(self, pushes: Iterable[Sent], now: float) -> tuple[list[Sent], list[Seat]]:
        """Take audio of different streams. Returns what was not taken, because more than a copy has to be done for it,
        and the seats of those whose Usage is due."""
        left: list[Sent] = []
        due: list[Seat] = []
        parts: dict[Group, _Part] = {}
        for key, push in pushes:
            seat = self._seats.get(key)
            if seat is None or not seat.seated or not _is_sound(push):
                left.append((key, push))
                continue
            part = parts.get(seat.group)
            if part is None:
                part = parts[seat.group] = _Part()
            part.seats.append(seat)
            part.sent.append((key, push))
        for group, part in parts.items():
            left += self._put(group, part, now, due)
        return left, due

    def _put(self, group: Group, part: _Part, now: float, due: list[Seat]) -> list[Sent]:
        lanes = group.lanes
        rows = np.array([seat.slot.row for seat in part.seats], np.intp)
        lengths: Counts = np.array([len(push.samples) for _, push in part.sent], np.int64)
        clocks = (lanes.heard[rows] + lanes.ahead[rows]).tolist()
        fits = lanes.plain[rows] & (lanes.filled(rows) + lengths <= lanes.windows.shape[1])
        # Compared one by one: what a client sends may be more than an array can hold.
        fits &= [push.at_sample == clock for (_, push), clock in zip(part.sent, clocks, strict=True)]
        left: list[Sent] = []
        if not fits.all():
            left = part.only((~fits).tolist()).sent
            part, rows, lengths = part.only(fits.tolist()), rows[fits], lengths[fits]
        lanes.put(rows, (push.samples for _, push in part.sent), lengths)
        lanes.messages[rows] += 1
        for seat, length in zip(part.seats, lengths.tolist(), strict=True):
            self._idle.heard(seat.slot, now, length / SAMPLE_RATE)
        group.load.wait(rows[lanes.ready(rows)].tolist(), now)
        late = lanes.heard[rows] >= lanes.usage_at[rows]
        if late.any():
            due += itertools.compress(part.seats, late.tolist())
        return left


def _is_sound(push: Push) -> bool:
    """The audio is what a stream takes; else the stream says why not."""
    samples = push.samples
    if type(samples) is not np.ndarray or samples.ndim != 1:
        return False
    if samples.dtype is FLOAT32:
        return math.isfinite(samples.dot(samples))
    return samples.dtype is INT16

"""Audio of many streams at once: what only has to go into their windows goes there; the rest is left to be looked at.

intake = Intake(seats, idle)
left, due = intake.take("owner", pushes, now)
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from nemostream.encoders import Indices
from nemostream.group import Group
from nemostream.idle import IdleWatch
from nemostream.protocol import FLOAT32, INT16, SAMPLE_RATE, Push, Pushes
from nemostream.seat import Seat
from nemostream.seating import Seating


class Intake:
    """The way of audio into the lanes of all groups."""

    def __init__(self, seats: Seating, idle: IdleWatch) -> None:
        self._seats, self._idle = seats, idle

    def take(self, owner: Hashable, pushes: Pushes, now: float) -> tuple[list[Push], list[Seat]]:
        """Take audio of the owner's streams.

        Returns:
            What was not taken, because more than a copy has to be done for it, in order; and the seats of those whose
            Usage is due.
        """
        if len(set(pushes.streams)) < len(pushes) or not _is_sound(pushes):
            return pushes.each(), []  # one stream's audio must stay in order; a stream says itself what is wrong
        parts: dict[Group, list[tuple[int, Seat]]] = {}
        for i, stream in enumerate(pushes.streams):
            seat = self._seats.get((owner, stream))
            if seat is None or not seat.seated:
                continue
            if (part := parts.get(seat.group)) is not None:
                part.append((i, seat))
            else:
                parts[seat.group] = [(i, seat)]
        ends = np.cumsum(pushes.lengths)
        taken: set[int] = set()
        due: list[Seat] = []
        for group, part in parts.items():
            due += self._put(group, [seat for _, seat in part], [i for i, _ in part], pushes, ends, now, taken)
        left = [push for i, push in enumerate(pushes.each()) if i not in taken] if len(taken) < len(pushes) else []
        return left, due

    def _put(
        self,
        group: Group,
        seats: Sequence[Seat],
        its: list[int],
        pushes: Pushes,
        ends: Indices,
        now: float,
        taken: set[int],
    ) -> list[Seat]:
        """Take the audio of one group's streams, those at `its` places. Notes in `taken` what was."""
        lanes = group.lanes
        rows = np.array([seat.slot.row for seat in seats], np.intp)
        lengths = np.array(pushes.lengths, np.int64)[its]
        clocks = (lanes.heard[rows] + lanes.ahead[rows]).tolist()
        fits = lanes.plain[rows] & (lanes.filled(rows) + lengths <= lanes.room)
        # Compared one by one: what a client sends may be more than an array can hold.
        fits &= [pushes.at_samples[i] == clock for i, clock in zip(its, clocks, strict=True)]
        if not fits.all():
            which = np.flatnonzero(fits).tolist()
            seats, its = [seats[k] for k in which], [its[k] for k in which]
            rows, lengths = rows[fits], lengths[fits]
        taken.update(its)
        lanes.put(rows, pushes.samples, ends[its] - lengths, lengths)
        lanes.messages[rows] += 1
        self._idle.heard([seat.slot for seat in seats], now, (lengths / SAMPLE_RATE).tolist())
        group.wait(rows, now)
        return [seats[k] for k in np.flatnonzero(lanes.heard[rows] >= lanes.usage_at[rows]).tolist()]


def _is_sound(pushes: Pushes) -> bool:
    """It is what a stream takes."""
    samples = pushes.samples
    if samples.ndim != 1 or samples.dtype not in (FLOAT32, INT16):
        return False
    return samples.dtype == INT16 or math.isfinite(samples.dot(samples))

"""Who has a row: live streams at once or not at all, batch streams when one is free, oldest first.

seating = Seating(rows=256)
if seating.full: seating.park(seating.newest_batch())
seating.add(live); live.sit()
seating.add(batch)
while (seat := seating.next()) is not None: seating.sit(seat)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nemostream.errors import EngineFull
from nemostream.protocol import Event
from nemostream.seat import Key, Seat

MAX_WAITING = 256
"""Batch streams that may wait for their first row; one more is refused."""
RETRY_AFTER = 1.0


class Seating:
    """The seats of all streams. `len`: those with a row; iterating gives them all, in the order they were opened."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._seats: dict[Key, Seat] = {}
        self._line: list[Seat] = []

    def __len__(self) -> int:
        return len(self._seats) - len(self._line)

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats.values())

    def __getitem__(self, key: Key) -> Seat:
        return self._seats[key]

    def get(self, key: Key) -> Seat | None:
        return self._seats.get(key)

    @property
    def waiting(self) -> int:
        """Streams without a row: parked, or not started yet."""
        return len(self._line)

    @property
    def full(self) -> bool:
        return len(self) >= self.rows

    def add(self, seat: Seat) -> None:
        """Put a new stream's seat at the end of the line.

        Raises:
            EngineFull: no row is free, and it is live or too many wait.
        """
        if self.full and seat.live:
            raise EngineFull(
                f"all {self.rows} rows of this engine are taken by live streams; close one or raise max_streams, or "
                "try again later",
                RETRY_AFTER,
            )
        if self.full and sum(not s.started for s in self._line) >= MAX_WAITING:
            raise EngineFull(
                f"all {self.rows} rows of this engine are taken and {MAX_WAITING} batch streams wait already; raise "
                "max_streams or try again later",
                RETRY_AFTER,
            )
        self._seats[seat.key] = seat
        self._line.append(seat)

    def remove(self, seat: Seat) -> None:
        """The stream has ended: its row is free."""
        if not seat.seated:
            self._line.remove(seat)
        seat.leave()
        del self._seats[seat.key]

    def next(self) -> Seat | None:
        """The stream that has waited longest, if a row is free."""
        return self._line[0] if self._line and not self.full else None

    def sit(self, seat: Seat) -> Sequence[Event]:
        """Give it a row; the events that follow. Raises SnapshotError (Seat.sit)."""
        events = seat.sit()
        self._line.remove(seat)
        return events

    def newest_batch(self) -> Seat | None:
        """The batch stream that makes room: the newest with a row, but rather one with no request half answered."""
        batch = [s for s in self._seats.values() if s.seated and not s.live]
        settled = [s for s in batch if s.stream.settled]
        return next(reversed(settled or batch), None)

    def park(self, seat: Seat) -> None:
        """Take its row away; it waits for another one, before all that are newer."""
        seat.park()
        self._line = [s for s in self._seats.values() if not s.seated]

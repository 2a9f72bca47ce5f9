"""What streams ask of a step: one row's work, and the batch of all rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nemostream.encoders import Indices
from nemostream.lanes import Flags, Lanes
from nemostream.protocol import Samples


@dataclass(slots=True, eq=False)
class Work:
    """One row of a step.

    Attributes:
        samples: those that the 8T mel frames of the chunk are made of (MelFilters.span); a view that the next push may
            change.
        frames: encoder frames of it to decode.
        first: it is the stream's first chunk: its first mel frames lie before the stream, where there is nothing.
        committed: the step belongs to the stream's true course.
        save: before this step the row's small state is to be saved (the first uncommitted step).
        restore: after this step the row is to be put back to what was saved (the last uncommitted step).
        peek: nothing is kept at all: only interim text comes of it.
    """

    samples: Samples
    frames: int
    first: bool = False
    committed: bool = True
    save: bool = False
    restore: bool = False
    peek: bool = False


@dataclass(slots=True, eq=False)
class Batch:
    """One chunk for each of B rows, as columns.

    Attributes:
        rows: (B,) ascending.
        frames: (B,) encoder frames to decode.
        first: (B,) Work.first.
        work: of the positions whose samples are not the next chunk of their row's window.
    """

    rows: Indices
    frames: Indices
    first: Flags
    work: dict[int, Work] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[int], work: Sequence[Work]) -> Batch:
        """Of work that is given for every row."""
        index = np.array(list(rows), np.intp)
        batch = cls(index, np.zeros(len(index), np.intp), np.zeros(len(index), np.bool_))
        for position, its in enumerate(work):
            batch.put(position, its)
        return batch

    @classmethod
    def of_lanes(cls, lanes: Lanes, rows: Indices, frames: int) -> Batch:
        """The next chunk of each of these rows, of so many frames."""
        return cls(rows, np.full(len(rows), frames, np.intp), lanes.chunks[rows] == 0)

    def put(self, position: int, work: Work) -> None:
        """That row has other work."""
        self.work[position] = work
        self.frames[position], self.first[position] = work.frames, work.first

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, begin: int, end: int) -> Batch:
        """The rows at positions `begin` to `end`."""
        its = slice(begin, end)
        work = {i - begin: w for i, w in self.work.items() if begin <= i < end}
        return Batch(self.rows[its], self.frames[its], self.first[its], work)

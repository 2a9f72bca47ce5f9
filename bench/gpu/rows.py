"""Rows of a group that hear speech: filled, stepped, and what they said.

talk = Talk(group, streams=64, samples=speech)
talk.hear(rows); talk.step(rows)
"""

from __future__ import annotations

import numpy as np

from nemostream.device.group import DeviceGroup
from nemostream.encoders import Indices
from nemostream.errors import StepFailed
from nemostream.lanes import Lane, Lanes
from nemostream.protocol import Samples
from nemostream.scheduler import Slot
from nemostream.work import Batch


class Talk:
    """Streams of one group, each of which hears the same talk from another place on.

    Attributes:
        said: (token, frame) of each stream, frames from its start.
        places: the chunk of the talk that each stream hears first.
    """

    def __init__(self, group: DeviceGroup, streams: int, talk: Samples) -> None:
        self.group, self.streams = group, streams
        self.step_samples = group.lanes.step
        self.said: list[list[tuple[int, int]]] = [[] for _ in range(streams)]
        self.failed = 0
        # Whole chunks, so that what comes in is copied from where it lies.
        self._blocks = talk[: len(talk) // self.step_samples * self.step_samples].reshape(-1, self.step_samples)
        self.places = np.random.RandomState(0).randint(0, len(self._blocks), streams)
        for owner in group.rows.owners():
            group.leave(owner)
        lanes = group.lanes
        for stream in range(streams):
            lane = Lane(Lanes(*lanes._like, 1))
            assert group.take(stream, "rnnt", Slot(live=True), lane=lane) is not None

    def hear(self, rows: Indices) -> None:
        """A chunk of each of these rows' talk comes in."""
        samples = self.step_samples
        at = self.places[rows] + self.group.lanes.heard[rows] // samples
        heard = self._blocks[at % len(self._blocks)].reshape(-1)
        lengths = np.full(len(rows), samples, np.int64)
        self.group.lanes.put(rows, heard, np.arange(len(rows), dtype=np.int64) * samples, lengths)

    def step(self, rows: Indices) -> None:
        """Run the next chunk of these rows, as the scheduler would have them run."""
        lanes, frames = self.group.lanes, self.group.chunk_frames
        batch = Batch.of_lanes(lanes, rows, frames)
        dense = self.streams if 2 * len(rows) > self.streams else None
        for row, outcome in zip(rows.tolist(), self.group.run(batch, dense), strict=True):
            if isinstance(outcome, StepFailed):
                self.failed += 1
            elif outcome:
                first = int(lanes.chunks[row]) * frames
                self.said[row] += [(token.id, first + token.frame) for token in outcome]
        lanes.advance(rows)

    def run(self, chunks: int) -> None:
        """All rows hear and say so many chunks, without pacing."""
        rows = np.arange(self.streams)
        for _ in range(chunks):
            self.hear(rows)
            self.step(rows[self.group.lanes.ready(rows)])


def agreement(found: list[tuple[int, int]], expected: list[tuple[int, int]]) -> float:
    """1 - edits / tokens, of the tokens without their frames; 1.0 where there are none to be said."""
    a, b = [token for token, _ in found], [token for token, _ in expected]
    if not b:
        return float(not a)
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return max(0.0, 1 - row[-1] / len(b))

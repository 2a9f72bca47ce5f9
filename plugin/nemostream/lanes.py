"""What all streams of a group have alike, a row each: the samples of their next chunks, and how far they have come.

lanes = Lanes(filters, chunk_frames=2, capacity=64)
lane = Lane(Lanes(filters, 2, 1))          # a stream's own, until it has a row
lane.put(samples); lane.enter(lanes, row=0)
lanes.put(rows, samples, begins, lengths); lanes.advance(rows)

With thousands of streams most of what is done to them is the same: audio comes, a chunk is used, nothing was said. As
columns of arrays that is done to all of them at once; only streams that have more to do are looked at one by one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nemostream.encoders import Floats, Indices
from nemostream.inbox import as_float
from nemostream.mel import MelFilters
from nemostream.protocol import FULL_SCALE, INT16, SAMPLE_RATE, Pcm, Samples

FRONT_FRAMES = 7
"""Mel frames before the stream in its first chunk, all zero: chunk k takes frames [8Tk - 7, 8Tk + 8T - 8]."""

ROOM = SAMPLE_RATE // 2
"""Samples. An engine that was held up finds what came meanwhile where it need not look at streams one by one: else it
would be slowest when it is late. With more room the moving up of what is left would make it so."""
MAX_MESSAGES = 1000
"""Messages without audio after which there is a checkpoint too."""

NEVER = np.iinfo(np.int64).max
"""When a Checkpoint is due that nobody wants."""

Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Lanes:
    """Columns of as many rows as a group has.

    Attributes:
        step: samples of a chunk.
        span: samples that its mel frames are made of.
        windows: (rows, room): those of the next chunk, and what has come behind them.
        room: for another chunk, or for three within ROOM: what belongs to the next ones need not wait elsewhere.
        heard: samples that the window has taken so far.
        chunks: those that were used.
        peeked: what was `heard` at the last look into an unfinished chunk.
        messages: since the stream's last checkpoint (Seat.taken).
        ahead: the stream's clock minus `heard`, while nothing waits.
        prompt: place of the row's language in the encoder's prompt.
        usage_at, save_at: what will be `heard` when a Usage or a Checkpoint is due.
        plain: nothing but the window stands between a push and the encoder: no request, detector or backlog.
        hushed: and a chunk in which nothing is said changes nothing that anybody sees.
    """

    def __init__(self, filters: MelFilters, chunk_frames: int, capacity: int) -> None:
        self.step = 8 * chunk_frames * filters.hop
        self.span = filters.span(8 * chunk_frames)
        self.room = self.span + max(self.step, min(3 * self.step, ROOM))
        self.windows: Floats = np.zeros((capacity, self.room), np.float32)
        self._counts: Counts = np.zeros((8, capacity), np.int64)
        self.heard, self.chunks, self.peeked, self.messages, self.ahead, *others = self._counts
        self.usage_at, self.save_at, self.prompt = others
        self._flags: Flags = np.zeros((2, capacity), np.bool_)
        self.plain, self.hushed = self._flags
        self._front = FRONT_FRAMES * filters.hop + filters.before
        self._like = filters, chunk_frames
        self._lanes: list[Lane | None] = []

    def add(self, lane: Lane | None) -> None:
        """The next row is taken, by that lane or by somebody without one."""
        self._lanes.append(None)
        self.windows[len(self._lanes) - 1] = 0.0  # its memory is had now, not when all streams begin to speak
        if lane is not None:
            lane.enter(self, len(self._lanes) - 1)
            self._lanes[-1] = lane

    def remove(self, row: int) -> None:
        """Free a row, whose stream has ended or has left (Lane.leave): the last one moves into its place."""
        last = self._lanes.pop()
        if len(self._lanes) != row:
            self._lanes[row] = last
            if last is not None:
                last.enter(self, row)

    def filled(self, rows: Indices) -> Counts:
        """Samples in these rows' windows."""
        counts: Counts = self._front + self.heard[rows] - self.chunks[rows] * self.step
        return counts

    def ready(self, rows: Indices) -> Flags:
        """Whether they hold a chunk."""
        return self.filled(rows) >= self.span

    def restless(self, rows: Indices) -> Flags:
        """Which of them have to be looked at after a chunk, even if nothing was said in it."""
        save_at = self.save_at[rows]
        due = (self.heard[rows] >= save_at) | ((self.messages[rows] >= MAX_MESSAGES) & (save_at < NEVER))
        flags: Flags = due | ~self.hushed[rows]
        return flags

    def unseen(self, total: int, samples: int) -> Indices:
        """Of the first `total` rows, those whose unfinished chunk has so many samples that no look has seen."""
        seen = np.maximum(self.peeked[:total], self.chunks[:total] * self.step)
        return np.flatnonzero(self.heard[:total] >= seen + samples)

    def behind(self, rows: Indices) -> Flags:
        """Whether more than a whole chunk has come beside the next one: they are catching up."""
        return self.filled(rows) > self.span + 2 * self.step

    def put(self, rows: Indices, samples: Samples | Pcm, begins: Counts, lengths: Counts) -> None:
        """Put audio into the windows of different rows, which have room for it: for each so many of the samples, from
        there on."""
        filled = self.filled(rows)
        self.heard[rows] += lengths
        length = int(lengths[0]) if len(lengths) else 0
        if not length or len(samples) % length or (lengths != length).any() or (begins % length).any():
            columns = (column.tolist() for column in (rows, filled, begins, lengths))
            for row, at, begin, its in zip(*columns, strict=True):
                write(self.windows[row, at : at + its], samples[begin : begin + its])
            return
        # Blocks of one length, and rows that are filled alike: one copy. Many small ones would be slower, each of them
        # a moment in which another thread may take the interpreter.
        blocks, places = samples.reshape(-1, length), begins // length
        for at in np.unique(filled).tolist():
            its = filled == at
            self.windows[rows[its], at : at + length] = as_float(blocks[places[its]])

    def advance(self, rows: Indices) -> None:
        """The chunks of these rows were used."""
        self.chunks[rows] += 1
        left = int(self.filled(rows).max(initial=0))
        self.windows[rows, :left] = self.windows[rows, self.step : self.step + left]


class Lane:
    """One stream's row: first of Lanes of its own, then of its group's, where it moves."""

    __slots__ = ("lanes", "row")

    def __init__(self, lanes: Lanes, row: int = 0) -> None:
        self.lanes, self.row = lanes, row

    @property
    def heard(self) -> int:
        return int(self.lanes.heard[self.row])

    @property
    def chunks(self) -> int:
        return int(self.lanes.chunks[self.row])

    @property
    def filled(self) -> int:
        """Samples in the window."""
        lanes, row = self.lanes, self.row
        return int(lanes._front + lanes.heard[row] - lanes.chunks[row] * lanes.step)

    @property
    def window(self) -> Samples:
        """A view."""
        window: Samples = self.lanes.windows[self.row]
        return window

    def put(self, samples: Samples | Pcm) -> None:
        """Put audio into the window, which has room for it."""
        at = self.filled
        write(self.lanes.windows[self.row, at : at + len(samples)], samples)
        self.lanes.heard[self.row] += len(samples)

    def advance(self) -> None:
        """The chunk was used."""
        lanes, row = self.lanes, self.row
        lanes.chunks[row] += 1
        left = self.filled
        lanes.windows[row, :left] = lanes.windows[row, lanes.step : lanes.step + left]

    def load(self, window: Samples, heard: int) -> bool:
        """Go on with that window after so many samples; False: that cannot be."""
        lanes, row = self.lanes, self.row
        chunks, rest = divmod(lanes._front + heard - len(window), lanes.step)
        if rest or chunks < 0 or not lanes.span - lanes.step <= len(window) <= lanes.room:
            return False
        lanes.heard[row], lanes.chunks[row] = heard, chunks
        lanes.windows[row, : len(window)] = window
        return True

    def enter(self, lanes: Lanes, row: int) -> None:
        """Take all to another row, and go on there."""
        filled = self.filled
        lanes.windows[row, :filled] = self.window[:filled]
        lanes._counts[:, row] = self.lanes._counts[:, self.row]
        lanes._flags[:, row] = self.lanes._flags[:, self.row]
        self.lanes, self.row = lanes, row

    def leave(self) -> None:
        """Go on in Lanes of its own."""
        self.enter(Lanes(*self.lanes._like, 1), 0)


def write(window: Samples, samples: Samples | Pcm) -> None:
    """Into a window of as many samples, in -1..1."""
    if samples.dtype == INT16:
        np.divide(samples, FULL_SCALE, out=window)
    else:
        window[:] = samples

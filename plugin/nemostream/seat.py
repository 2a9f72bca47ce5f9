"""One stream's place in the engine: a row of its group, or what that row must hold once it gets one.

seat = Seat(key, opened, group)
events = seat.sit()      # it has a row
seat.park()              # the row is free; the seat keeps what it held, for the next one
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Sequence

from nemostream import snapshot
from nemostream.encoders import RowState
from nemostream.errors import SnapshotError
from nemostream.group import Group
from nemostream.handover import handed_over
from nemostream.lanes import MAX_MESSAGES, NEVER
from nemostream.protocol import SAMPLE_RATE, Checkpoint, Event, Final, Open, Started
from nemostream.scheduler import Slot
from nemostream.snapshot import Snapshot
from nemostream.stream import Stream

Key = tuple[Hashable, int]
"""An owner and its number for the stream."""
MAX_BACKLOG = {"live": 30 * SAMPLE_RATE, "batch": 3600 * SAMPLE_RATE}
"""Audio that may wait for a stream's steps, or for its row, before it is closed with Overrun."""
CHECKPOINT_SAMPLES = 5 * SAMPLE_RATE
"""Audio between two checkpoints of a recoverable stream: what a lost engine costs at most to hear again."""
CATCHING_UP_SAMPLES = SAMPLE_RATE
"""And while a stream that was opened again catches up: engines that die one after another get on all the same."""
REPLAY_SAMPLES = 20 * SAMPLE_RATE
"""What is sent again to a new engine is about so much at most (ledger.LIMIT)."""
UNSAVED_SAMPLES = 5 * SAMPLE_RATE
"""Audio in front of which a checkpoint may stop. It waits untouched and whoever sent it still has it: an engine that is
late must not be made later by copying and sending what it has not got to."""
CHECKPOINT_PHASES = 8


class Seat:
    """A stream, its group, and what the scheduler knows of it.

    Attributes:
        seated: it has a row.
        started: it had one before.
        closing: it was closed, and ends once what it was asked before is answered.
        keep: it ends with a Checkpoint, for its owner to go on with.
        limit: samples that may wait.
        closes: messages that closed it. A checkpoint on the way to the end does not cover them: who goes on from it
            must end too.
    """

    __slots__ = (
        *("key", "stream", "group", "slot", "limit", "seated", "started", "closing", "keep", "closes"),
        *("_decoder", "_language", "_late", "_opened_at", "_saved_at", "_state"),
    )

    def __init__(self, key: Key, opened: Open, group: Group) -> None:
        """`group`: that of the model and chunk size which `opened` asks for.

        Raises:
            UnsupportedLanguage, KeytermsError, BundleError: the model does not have what is asked for.
            SnapshotError: what it is to resume cannot be gone on with here.
        """
        model = group.model
        self.key, self.group = key, group
        self.seated = self.started = self.closing = self.keep = False
        self.closes = 0
        self.slot = Slot(live=opened.priority == "live")
        self.limit = MAX_BACKLOG[opened.priority]
        self._language = model.language(opened.language)
        self._decoder = model.decoder_name(opened.decoder)
        self.stream = Stream(opened, model, group.chunk_frames)
        model.keyterms.tree(opened.keyterms)
        self._state: RowState | None = None
        if opened.resume is not None:
            saved = snapshot.decode(opened.resume)
            saved.check(model.bundle.hash, model.precision, group.chunk_frames)
            if saved.row.decoder != self._decoder:
                raise SnapshotError(f"the saved stream decodes with {saved.row.decoder}, not {self._decoder}")
            self.stream.load(saved.stream, saved.feed)
            self._state = saved.row
        self._saved_at = self.stream.feed.past
        self._opened_at = self._saved_at
        self._late: deque[int | None] = deque(maxlen=MAX_MESSAGES // 2)

    @property
    def live(self) -> bool:
        return self.slot.live

    @property
    def taken(self) -> int:
        """Messages since the Open or the last checkpoint, but for those that close the stream."""
        lane = self.stream.feed.lane
        return int(lane.lanes.messages[lane.row])

    @taken.setter
    def taken(self, count: int) -> None:
        lane = self.stream.feed.lane
        lane.lanes.messages[lane.row] = count

    def sit(self) -> list[Event]:
        """Take a row, which must be free; the events that follow from it.

        Raises:
            SnapshotError: what the row should hold does not fit. None was taken.
        """
        boost = self.group.model.keyterms.tree(self.stream.keyterms)
        generation = self.group.take(self.key, self._decoder, self.slot, self._state, self.stream.feed.lane, boost)
        assert generation is not None, "a group has as many rows as the house"
        self.seated, self._state = True, None
        if self.started:
            return []
        self.started, stream = True, self.stream
        stream.generation = generation
        # Streams that were opened together are not saved in the same step.
        self._saved_at -= generation % CHECKPOINT_PHASES * CHECKPOINT_SAMPLES // CHECKPOINT_PHASES
        started = stream.event(
            Started,
            bundle=self.group.model.bundle.hash,
            language=self._language,
            chunk_ms=stream.chunk_frames * self.group.model.frame_ms,
            wall_time=time.time(),
            at_sample=stream.at_sample,
        )
        return [started]

    def leave(self) -> None:
        """Give the row back, if it has one, for good."""
        if self.seated:
            self.group.leave(self.key)
            self.seated = False

    def park(self) -> None:
        """Give the row back; what it held is kept for the next one. No request may be half answered."""
        self._state = self.group.export(self.key)
        self.stream.feed.lane.leave()
        self.leave()

    def refresh(self, now: float) -> None:
        """After anything that was not done to its group's lanes alone: tell the scheduler whether the stream has a step
        to take, and since when; and those lanes what may be done without looking at it."""
        stream, feed, lane = self.stream, self.stream.feed, self.stream.feed.lane
        if self.seated and stream.turn_to_keyterms():
            self.group.boost(self.key, self.group.model.keyterms.tree(stream.keyterms))
        if feed.ready:
            self.slot.wait(now, feed.asked, stream.feed.behind)
        elif self.slot.ready_at is not None:
            self.slot.rest()
        if feed.skips:
            self.slot.expect(False)  # until audio comes again, of which nobody knows yet what it is
        lanes, row = lane.lanes, lane.row
        lanes.plain[row] = plain = feed.plain and not self.closing
        lanes.hushed[row] = plain and stream.idle
        lanes.ahead[row] = stream.ahead
        lanes.usage_at[row] = stream.usage_at
        save_at = self._saved_at + CHECKPOINT_SAMPLES - feed.skipped
        lanes.save_at[row] = save_at if stream.opened.recoverable else NEVER

    def took(self, samples: int | None) -> None:
        """A message came: so much audio, which went on where the stream stood, or something else (None)."""
        self.taken += 1
        if self.stream.feed.waiting:
            self._late.append(samples)
        elif self._late:
            self._late.clear()

    def snapshot(self, without: int = 0) -> Snapshot:
        """All of the stream, between two steps; no request of it may be half answered (Stream.settled). `without`: what
        it is before the last so many samples (Feed.tail)."""
        model = self.group.model
        row = self.group.export(self.key) if self.seated else self._state
        assert row is not None, "a stream that never had a row has nothing to save"
        return Snapshot(
            bundle=model.bundle.hash,
            precision=model.precision,
            chunk_frames=self.group.chunk_frames,
            stream=self.stream.export(without),
            feed=self.stream.feed.export(without),
            row=row,
        )

    @property
    def checkpoint_near(self) -> bool:
        """`checkpoint` may be due. Cheap: it is asked after every step."""
        return self.stream.feed.past - self._saved_at >= CATCHING_UP_SAMPLES or self.taken >= MAX_MESSAGES

    def checkpoint(self, events: Sequence[Event]) -> list[Event]:
        """Save a recoverable stream now and then; and always with a Final that came of time, not of what was sent: a
        replay would not give it again.

        Args:
            events: of the step that has just run.
        """
        stream = self.stream
        if not stream.opened.recoverable or not stream.settled or stream.feed.waiting > MAX_BACKLOG["live"]:
            return []
        timed = any(isinstance(e, Final) and e.reason == "idle" for e in events)
        again = stream.feed.behind and stream.feed.past < self._opened_at + REPLAY_SAMPLES
        interval = CATCHING_UP_SAMPLES if again else CHECKPOINT_SAMPLES
        due = stream.feed.past - self._saved_at >= interval or self.taken >= MAX_MESSAGES
        if not timed and not due:
            return []
        self._saved_at = stream.feed.past
        messages, samples = self._untouched()
        return [self._saved(self.snapshot(samples), messages)]

    def last_checkpoint(self) -> list[Event]:
        """What the owner goes on with in another stream, if it asked for that and it can be had."""
        if not self.keep or not self.started or not self.stream.settled:
            return []
        self.taken += self.closes
        return [self._saved(handed_over(self.snapshot(), self.group.model.frame_samples))]

    def _untouched(self) -> tuple[int, int]:
        """The last messages that are nothing but audio which waits, and how much that is."""
        messages = samples = 0
        room = min(self.stream.feed.tail, UNSAVED_SAMPLES)
        for more in reversed(self._late):
            if more is None or samples + more > room or messages == self.taken:
                break
            messages, samples = messages + 1, samples + more
        return messages, samples

    def _saved(self, saved: Snapshot, left: int = 0) -> Event:
        """`left`: the last messages, which it does not cover."""
        taken, self.taken = self.taken - left, left
        return self.stream.event(Checkpoint, taken=taken, snapshot=snapshot.encode(saved))

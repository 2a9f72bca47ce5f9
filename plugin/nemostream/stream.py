"""One stream: what it asks of the encoder next, and what the answers mean. No model runs here.

stream.push(samples); stream.request("flush", 7)
while stream.feed.ready:                   # the engine runs many streams' chunks and requests as one batch
    work = None if stream.feed.chunk() is not None else stream.request_work()
    events += stream.done(tokens, work)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from nemostream.errors import AudioError, Overrun, SnapshotError
from nemostream.feed import GAP_FINALISES, Feed, FeedState
from nemostream.gate import SETTLED
from nemostream.greedy import Token
from nemostream.inbox import Options, Request
from nemostream.model import Model
from nemostream.protocol import (
    FLOAT32,
    INT16,
    SAMPLE_RATE,
    Event,
    FinalReason,
    Open,
    Pcm,
    Samples,
    Update,
    Usage,
    updated,
)
from nemostream.reconcile import Reconciler, ReconcilerState
from nemostream.scribe import Scribe, ScribeState
from nemostream.work import Work

MAX_REQUESTS = 1000
"""Flushes and other requests of a stream that may wait: each costs steps."""
MAX_GAP = 1 << 40
"""Two years."""
USAGE_SAMPLES = 5 * SAMPLE_RATE
"""Audio between two Usage events."""

E = TypeVar("E", bound=Event)


@dataclass(slots=True)
class StreamState:
    """A Stream as plain data, its way in apart."""

    chunks: int
    pushed: int
    audio: int
    unreported: int
    sequence: int
    scribe: ScribeState
    reconciler: ReconcilerState
    keyterms: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Trial:
    """The uncommitted steps of a request under way: the `windows` of their chunks, of which `frames` are decoded."""

    windows: list[Samples]
    frames: int
    tokens: list[Token]
    done: int = 0


class Stream:
    """The state of one stream beside its row.

    Attributes:
        keyterms: those that its row decodes with.
    """

    def __init__(self, opened: Open, model: Model, chunk_frames: int) -> None:
        self.opened = opened
        self.generation = 0
        self.chunk_frames = chunk_frames
        self._model = model
        self.feed = Feed(model.mel, chunk_frames, self._asked, self._jump_at_once)
        self.keyterms = opened.keyterms
        self._trial: _Trial | None = None
        self._scribe = Scribe(model, self.event, lambda: self.feed.heard)
        self._reconciler = Reconciler(model.vocabulary)
        self._jumped = 0  # of what was pushed: time that a long gap jumped over, or the gate before a resume
        self._silent = 0  # of its clock: time without audio
        self._reported = 0
        self._sequence = 0

    # --- what the owner sends ---

    def push(self, samples: Samples | Pcm, at_sample: int | None = None) -> None:
        """Take audio. What comes again (`at_sample` behind the clock) is dropped, what is missing becomes a gap.

        Raises:
            AudioError: not a vector of float32 or int16, or not all samples are finite; nothing was taken.
        """
        if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype not in (FLOAT32, INT16):
            found = f"{samples.dtype} {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
            raise AudioError(f"push takes a float32 or int16 array of mono samples, shape (n,), not {found}")
        # The product is finite unless a sample is not, or samples are far louder than any sound.
        if samples.dtype == FLOAT32 and not math.isfinite(samples.dot(samples)) and not np.isfinite(samples).all():
            raise AudioError("the audio holds NaN or infinite samples; send finite values in -1..1")
        if at_sample is not None and at_sample != (clock := self.at_sample):
            if at_sample > clock:
                self.gap(at_sample - clock)
            else:
                samples = samples[clock - at_sample :]
        self.feed.push(samples)

    def gap(self, samples: int) -> None:
        """Time without audio: filled with silence if short, else what is pending is finalised.

        Raises:
            AudioError: less than no time, or years.
        """
        if not 0 <= samples <= MAX_GAP:
            raise AudioError(f"a gap lasts 0 to {MAX_GAP} samples, not {samples}")
        self._silent += samples
        if samples < GAP_FINALISES:
            self.feed.push(np.zeros(samples, np.float32))
            return
        self._jumped += samples
        self.feed.request(Request("gap", gap=samples))

    def request(self, reason: FinalReason, flush_id: int | None = None) -> None:
        """Finalise what was pushed so far. A request with a `flush_id` is always answered, any other only by text.

        Raises:
            Overrun: too many wait for their answer.
        """
        if self.feed.requests >= MAX_REQUESTS:
            raise Overrun(f"{MAX_REQUESTS} requests of this stream wait for an answer; flush less often")
        self.feed.request(Request(reason, flush_id))

    def update(self, change: Update) -> None:
        """Change how the stream is heard, behind all audio so far.

        Raises:
            UnsupportedLanguage, KeytermsError: the model does not have what is asked for.
        """
        self._model.keyterms.tree(change.keyterms or ())
        self.opened = updated(self.opened, change)
        self.feed.change(self._asked)

    # --- what the engine asks ---

    @property
    def at_sample(self) -> int:
        """The stream's clock: where the next push begins."""
        return self.feed.heard + self.ahead

    @property
    def ahead(self) -> int:
        """Its clock minus what was heard."""
        return self.feed.waiting + self.feed.skipped + self._jumped

    @property
    def settled(self) -> bool:
        """No request is half answered, so the stream can be exported."""
        return self._trial is None

    @property
    def unfinalised(self) -> bool:
        """Audio has come since the last request was answered."""
        return self.feed.waiting > 0 or self.feed.heard > self.feed.finalised

    @property
    def backlog(self) -> int:
        """Samples taken that no step has seen yet."""
        return self.feed.waiting + max(0, self.feed.heard - self._consumed)

    def request_work(self) -> Work:
        """The next step of the request whose turn it is. All other steps are of chunks (Batch.of_lanes)."""
        trial = self._trial = self._trial or self._begin_trial()
        step = trial.done
        return Work(
            trial.windows[step],
            min(self.chunk_frames, trial.frames - step * self.chunk_frames),
            first=self._chunks + step == 0,
            committed=False,
            save=step == 0,
            restore=step == len(trial.windows) - 1,
        )

    def peek_work(self, every: int) -> Work | None:
        """A look at the chunk that is still filling, when `every` samples have come since the last look."""
        lanes, row, heard = self.feed.lane.lanes, self.feed.lane.row, self.feed.heard
        due = max(int(lanes.peeked[row]), self._consumed) + every
        if self.feed.ready or heard < due or heard <= self.feed.finalised:
            return None
        lanes.peeked[row] = heard
        frames = (heard - self._consumed) // self._model.frame_samples
        (window,) = self.feed.padded(1)
        first = self._chunks == 0
        return Work(window, frames, first=first, committed=False, save=True, restore=True, peek=True)

    def done(self, tokens: Sequence[Token], work: Work | None = None) -> list[Event]:
        """Take the tokens of a step (frames counted from its chunk's start); the events that follow from them.

        Args:
            work: what the step was for, if not for the next chunk.
        """
        if work is None and not tokens and self._scribe.idle:
            self.feed.take_chunk()  # nothing was said, and nothing is to be shown
            return []
        first = self._chunks * self.chunk_frames
        if self._trial is not None and work is not None:
            first += self._trial.done * self.chunk_frames
        placed = [t._replace(frame=first + t.frame) for t in tokens]
        if work is None:
            return self._commit(placed)
        # What is not committed ends nothing but what was asked for: of marks, only the text beside them counts.
        placed = [t for t in placed if t.id not in self._model.vocabulary.marks]
        if work.peek:
            return self._scribe.look(self._reconciler.fork().sort(placed).new)
        assert self._trial is not None
        self._trial.tokens += placed
        self._trial.done += 1
        return self._answer(self._trial) if work.restore else []

    def turn_to_keyterms(self) -> bool:
        """Whether others count from now on: those that were reached, where a segment begins."""
        wanted = self.feed.reached.keyterms
        if wanted == self.keyterms or not self._scribe.empty or self._trial is not None:
            return False
        self.keyterms = wanted
        return True

    @property
    def idle(self) -> bool:
        """Nothing was said that a chunk in which nothing is said could end or change."""
        return self._scribe.idle

    @property
    def usage_at(self) -> int:
        """What will be heard when the next Usage is worth an event."""
        return USAGE_SAMPLES + self._reported + self._silent - self.ahead + self.feed.waiting

    def usage(self, last: bool = False) -> list[Event]:
        """The audio heard since the last Usage, if there was any. `last`: what waits counts too."""
        audio = self._audio - (0 if last else self.feed.waiting)
        if audio <= self._reported:
            return []
        samples, self._reported = audio - self._reported, audio
        return [self.event(Usage, samples=samples, total=audio)]

    def event(self, kind: type[E], **fields: Any) -> E:
        """An event of this stream, numbered."""
        self._sequence += 1
        return kind(self.opened.stream, self.generation, self._sequence, **fields)

    # --- leaving and coming back ---

    def export(self, without: int = 0) -> StreamState:
        """Where the stream stands, between two steps and with no request half answered; or stood before the last
        `without` samples came."""
        assert self._trial is None
        return StreamState(
            chunks=self._chunks,
            pushed=self.at_sample - without,
            audio=self._audio - without,
            unreported=self._audio - self._reported - without,
            sequence=self._sequence,
            scribe=self._scribe.export(),
            reconciler=self._reconciler.export(),
            keyterms=self.keyterms,
        )

    def load(self, saved: StreamState, feed: FeedState) -> None:
        """Go on where `saved` was exported."""
        self.feed.load(feed)
        if saved.chunks != self._chunks:
            raise SnapshotError("the saved stream has a window of other chunks; open it without resume")
        self._sequence = saved.sequence
        self._jumped = saved.pushed - self.feed.heard - self.feed.waiting
        self._silent, self._reported = saved.pushed - saved.audio, saved.audio - saved.unreported
        self._scribe.load(saved.scribe)
        self._reconciler = Reconciler.load(self._model.vocabulary, saved.reconciler)
        self.keyterms = saved.keyterms
        if self._asked != self.feed.options:
            # Only then: the detector does not hear the rest of a window in front of a change.
            self.feed.change(self._asked)

    # --- inside ---

    @property
    def _asked(self) -> Options:
        opened, model = self.opened, self._model
        endpointing, prompt = opened.endpointing or model.endpointing, model.prompt(opened.language)
        return Options(endpointing, prompt, opened.keyterms, opened.skip_silence)

    @property
    def _chunks(self) -> int:
        """Those that were committed."""
        return self.feed.lane.chunks

    @property
    def _audio(self) -> int:
        """Samples of audio accepted."""
        return self.at_sample - self._silent

    @property
    def _consumed(self) -> int:
        """Samples up to the nominal end of the committed chunks (they need 67.5 ms less than that)."""
        return self._chunks * self.chunk_frames * self._model.frame_samples

    def _jump(self, samples: int) -> None:
        """From the first encoder frame that begins behind what was heard, the clock is ahead by `samples` more."""
        if samples:
            self._scribe.jump(-(-self.feed.heard // self._model.frame_samples), samples)

    def _jump_at_once(self, gap: Request, finalised: bool) -> bool:
        """Jump, if that needs no step: nothing is pending, or silence alone."""
        silent = gap.silent and self._scribe.empty and self.feed.heard - self._consumed <= SETTLED
        if finalised or silent:
            self._jump(gap.gap)
        return finalised or silent

    def _begin_trial(self) -> _Trial:
        """ceil((pending + P) / chunk) steps: what is pending and P of silence behind it."""
        end = self.feed.heard + self._model.flush_samples
        steps = -(-(end - self._consumed) // (self.chunk_frames * self._model.frame_samples))
        frames = -(-end // self._model.frame_samples) - self._chunks * self.chunk_frames
        return _Trial(self.feed.padded(steps), frames, [])

    def _commit(self, tokens: Sequence[Token]) -> list[Event]:
        events: list[Event] = []
        blank_ms, marks = self.feed.reached.endpointing.blank_ms, self._model.vocabulary.marks
        for token in tokens:
            events += self._scribe.quiet(token.frame, blank_ms)
            if token.id in marks:
                events += self._scribe.mark(marks[token.id])
                continue
            for new in self._reconciler.sort([token]).new:
                events += self._scribe.add(new)
        end = (self._chunks + 1) * self.chunk_frames
        events += self._scribe.quiet(end, blank_ms)
        events += self._scribe.committed(bool(tokens), end)
        # Last: what comes behind the chunk, another endpointing for instance, is not for this one.
        self.feed.take_chunk()
        return events

    def _answer(self, trial: _Trial) -> list[Event]:
        """All uncommitted steps of the request have run: give what they found."""
        request = self.feed.open_request
        assert request is not None
        sorted_ = self._reconciler.fork().sort(trial.tokens)
        until = -(-(self.feed.heard + self._model.flush_samples) // self._model.frame_samples)
        self._reconciler = self._reconciler.after_flush(sorted_.given, trial.tokens, until)
        events = self._scribe.close(request.reason, request.flush_id, sorted_.new)
        self._jump(request.gap)
        self._trial = None
        self.feed.answered()
        return events

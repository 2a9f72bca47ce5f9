"""One stream: samples in, chunks for the encoder out; tokens in, events out. No model runs here.

    stream.push(samples); stream.flush(7)
    while (work := stream.next_work()) is not None:     # the engine runs many streams' work as one batch
        events += stream.done(work, tokens)

A request (flush, gap, mute, close) holds back the audio behind it until the request is answered: first the complete
chunks before it run, then its uncommitted steps over the pending frames and silence.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from nemostream.encoders import Floats
from nemostream.errors import AudioError
from nemostream.greedy import Token
from nemostream.mel import MelStream
from nemostream.model import Model
from nemostream.protocol import (
    SAMPLE_RATE,
    Endpointing,
    Event,
    Final,
    FinalReason,
    Interim,
    Open,
    Preflight,
    Samples,
    Usage,
    Word,
)
from nemostream.reconcile import Reconciler
from nemostream.transcript import Segment, Timeline, text_of
from nemostream.vad import WINDOW, Ear

FRONT_FRAMES = 7
"""Mel frames before the stream in its first chunk: chunk k takes frames [8Tk - 7, 8Tk + 8T - 8]."""
GAP_FINALISES = SAMPLE_RATE * 400 // 1000
"""A gap this long (400 ms) finalises what is pending; a shorter one is filled with silence."""
PREFLIGHT_FRAMES = 2
"""Blank frames (160 ms) behind unchanged text after which it is called stable."""
SEGMENT_SECONDS = 15
"""A longer segment is closed at the next word boundary."""
USAGE_SAMPLES = 5 * SAMPLE_RATE
"""Audio between two Usage events."""

E = TypeVar("E", bound=Event)


@dataclass(slots=True)
class Request:
    """Something that ends the segment: a flush with an id, or a reason of the engine's own."""

    reason: FinalReason
    flush_id: int | None = None
    gap: int = 0
    """Samples by which the clock jumps once the request is answered."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One row of a step.

    Attributes:
        mel: (8T, n_mels) frames of the chunk.
        frames: encoder frames of it to decode.
        peek: nothing is kept at all: only interim text comes of it.
        save: before this step the row's small state is to be saved (the first uncommitted step).
        restore: after this step the row is to be put back to what was saved (the last uncommitted step).
        committed: the step belongs to the stream's true course.
    """

    mel: Floats
    frames: int
    committed: bool = True
    save: bool = False
    restore: bool = False
    peek: bool = False


@dataclass(slots=True, eq=False)
class _Trial:
    """The uncommitted steps of a request under way."""

    mel: Floats
    steps: int
    frames: int
    done: int = 0


class Stream:
    """The state of one stream beside its row."""

    def __init__(self, opened: Open, model: Model, chunk_frames: int, generation: int) -> None:
        self.opened = opened
        self.generation = generation
        self.chunk_frames = chunk_frames
        self.ended = False
        self._model = model
        self._mel = MelStream(model.mel)
        self._frames: Floats = np.zeros((FRONT_FRAMES, model.mel.n_mels), np.float32)
        self.ear: Ear | None = None
        self._unjudged: Samples = np.zeros(0, np.float32)
        self._inbox: deque[Samples | Request] = deque()
        self._request: Request | None = None
        self._trial: _Trial | None = None
        self._trial_tokens: list[Token] = []
        self._heard = 0
        self._chunks = 0
        self._finalised = 0
        self._timeline = Timeline(model.frame_samples, model.delay_samples)
        self._segment = Segment(model.vocabulary, self._timeline)
        self._reconciler = Reconciler(model.vocabulary)
        self._shown = ""
        self._stable = ""
        self._peeked = 0
        self._pushed = 0
        self._unreported = 0
        self._sequence = 0
        self._blank_frames: int | None = None
        self.set_endpointing(opened.endpointing)

    # --- what the owner sends ---

    @property
    def next_sample(self) -> int:
        """Clock time of the next sample to be pushed."""
        return self._pushed

    def push(self, samples: Samples, at_sample: int | None = None) -> None:
        """Take audio. What comes again (`at_sample` behind the clock) is dropped, what is missing becomes a gap.

        Raises:
            AudioError: not a float32 vector, or not all samples are finite; nothing was taken.
        """
        if samples.dtype != np.float32 or samples.ndim != 1:
            raise AudioError(f"push takes float32 mono samples, shape (n,), not {samples.dtype} {samples.shape}")
        if not np.isfinite(samples).all():
            raise AudioError("the audio holds NaN or infinite samples; send finite values in -1..1")
        if at_sample is not None and at_sample > self._pushed:
            self.gap(at_sample - self._pushed)
        elif at_sample is not None:
            samples = samples[self._pushed - at_sample :]
        self._pushed += len(samples)
        self._unreported += len(samples)
        if self.ear is not None:
            # The detector goes first, so that an endpoint falls on the same sample however the audio was cut.
            self.ear.hear(samples)
            self._unjudged = np.concatenate([self._unjudged, samples])
            return
        self._inbox.append(samples)
        self._drain_inbox()

    def judged(self, endpoint: bool) -> None:
        """The detector has heard one more window, and an endpoint or not."""
        self._release(WINDOW)
        if endpoint:
            # Behind this window, not behind the audio that is still unjudged, as `request` would put it.
            self._inbox.append(Request("endpoint"))
            self._drain_inbox()

    def gap(self, samples: int) -> None:
        """Time without audio: filled with silence if short, else what is pending is finalised."""
        self._release(len(self._unjudged))
        self._pushed += samples
        if samples < GAP_FINALISES:
            self._inbox.append(np.zeros(samples, np.float32))
        else:
            self._inbox.append(Request("gap", gap=samples))
        self._drain_inbox()

    def request(self, reason: FinalReason, flush_id: int | None = None) -> None:
        """Finalise what was pushed so far. A request with a `flush_id` is always answered, any other only by text."""
        self._release(len(self._unjudged))
        self._inbox.append(Request(reason, flush_id))
        self._drain_inbox()

    def set_endpointing(self, endpointing: Endpointing) -> None:
        """Change when a segment ends by itself, from the next frame on."""
        ms = endpointing.blank_ms
        frame_ms = self._model.frame_samples * 1000 // SAMPLE_RATE
        self._blank_frames = None if ms is None else max(1, -(-ms // frame_ms))
        if endpointing.vad_ms is None:
            self.ear = None
            self._release(len(self._unjudged))
        elif self.ear is None:
            self.ear = Ear(endpointing.vad_ms * SAMPLE_RATE // 1000)
        else:
            self.ear.silence_samples = endpointing.vad_ms * SAMPLE_RATE // 1000

    # --- what the engine asks ---

    @property
    def urgent(self) -> bool:
        """Somebody waits for an answer that needs no more audio."""
        return self._request is not None

    @property
    def ready(self) -> bool:
        """`next_work` has something."""
        return self.urgent or len(self._frames) >= 8 * self.chunk_frames

    @property
    def unfinalised(self) -> bool:
        """Audio has come since the last request was answered."""
        return bool(self._inbox) or bool(len(self._unjudged)) or self._heard > self._finalised

    @property
    def backlog(self) -> int:
        """Samples taken that no step has seen yet."""
        waiting = sum(len(x) for x in self._inbox if isinstance(x, np.ndarray))
        return waiting + len(self._unjudged) + max(0, self._heard - self._consumed)

    def next_work(self) -> Work | None:
        """The next step this stream can take, or None: more audio is needed."""
        width = 8 * self.chunk_frames
        if len(self._frames) >= width:
            return Work(self._frames[:width], self.chunk_frames)
        if self._request is None:
            return None
        trial = self._trial = self._trial or self._begin_trial()
        step = trial.done
        frames = min(self.chunk_frames, trial.frames - step * self.chunk_frames)
        return Work(
            trial.mel[step * width : (step + 1) * width],
            frames,
            committed=False,
            save=step == 0,
            restore=step == trial.steps - 1,
        )

    def peek_work(self, every: int) -> Work | None:
        """A look at the chunk that is still filling, when `every` samples have come since the last look."""
        due = max(self._peeked, self._consumed) + every
        if self._request is not None or self._heard < due or self._heard <= self._finalised:
            return None
        width = 8 * self.chunk_frames
        if len(self._frames) >= width:
            return None
        self._peeked = self._heard
        mel = np.concatenate([self._frames, self._silence(width - len(self._frames))])
        frames = (self._heard - self._consumed) // self._model.frame_samples
        return Work(mel, frames, committed=False, save=True, restore=True, peek=True)

    def done(self, work: Work, tokens: list[Token]) -> list[Event]:
        """Take the tokens of a step (frames counted from its chunk's start); the events that follow from them."""
        first = self._chunks * self.chunk_frames
        if work.peek:
            seen = [t._replace(frame=first + t.frame) for t in tokens]
            return self._show(self._reconciler.fork().filter(seen))
        if work.committed:
            return self._commit([t._replace(frame=first + t.frame) for t in tokens])
        assert self._trial is not None
        first += self._trial.done * self.chunk_frames
        self._trial_tokens += [t._replace(frame=first + t.frame) for t in tokens]
        self._trial.done += 1
        return self._answer() if work.restore else []

    def usage(self, at_least: int = USAGE_SAMPLES) -> list[Event]:
        """The audio accepted since the last Usage, if it is worth one."""
        if self._unreported < max(1, at_least):
            return []
        samples, self._unreported = self._unreported, 0
        return [self.event(Usage, samples=samples)]

    def event(self, kind: type[E], **fields: Any) -> E:
        """An event of this stream, numbered."""
        self._sequence += 1
        return kind(self.opened.stream, self.generation, self._sequence, **fields)

    # --- inside ---

    @property
    def _consumed(self) -> int:
        """Samples up to the nominal end of the committed chunks (they need 67.5 ms less than that)."""
        return self._chunks * self.chunk_frames * self._model.frame_samples

    def _release(self, samples: int) -> None:
        """Let audio that the detector held back go on to the model."""
        released, self._unjudged = self._unjudged[:samples], self._unjudged[samples:]
        if len(released):
            self._inbox.append(released)
            self._drain_inbox()

    def _drain_inbox(self) -> None:
        while self._inbox and self._request is None:
            item = self._inbox.popleft()
            if isinstance(item, Request):
                self._request = item
                self._trial_tokens = []
            else:
                self._heard += len(item)
                self._frames = np.concatenate([self._frames, self._mel.push(item)])

    def _begin_trial(self) -> _Trial:
        """ceil((pending + P) / chunk) steps: what is pending and P of silence behind it."""
        end = self._heard + self._model.flush_samples
        chunk = self.chunk_frames * self._model.frame_samples
        steps = -(-(end - self._consumed) // chunk)
        missing = steps * 8 * self.chunk_frames - len(self._frames)
        mel = np.concatenate([self._frames, self._silence(missing)])
        frames = -(-end // self._model.frame_samples) - self._chunks * self.chunk_frames
        return _Trial(mel, steps, frames)

    def _silence(self, frames: int) -> Floats:
        """The next mel frames if only silence followed."""
        hop, window = self._model.mel.hop, len(self._model.mel.window)
        return self._mel.fork().push(np.zeros(frames * hop + window, np.float32))[:frames]

    def _commit(self, tokens: list[Token]) -> list[Event]:
        self._frames = self._frames[8 * self.chunk_frames :]
        self._chunks += 1
        events: list[Event] = []
        for token in tokens:
            events += self._close_if_quiet(token.frame)
            for new in self._reconciler.filter([token]):
                events += self._close_if_long(new)
                self._segment.tokens.append(new)
        end = self._chunks * self.chunk_frames
        events += self._close_if_quiet(end)
        events += self._show([])
        tokens = self._segment.tokens
        if tokens and end - tokens[-1].frame > PREFLIGHT_FRAMES and self._shown not in ("", self._stable):
            self._stable = self._shown
            events.append(self.event(Preflight, text=self._shown, words=self._segment.words()))
        return events

    def _close_if_quiet(self, frame: int) -> list[Event]:
        """End the segment if enough blank frames lie between its last token and `frame`."""
        if not self._segment.tokens or self._blank_frames is None:
            return []
        blanks = frame - self._segment.tokens[-1].frame - 1
        return self._close("endpoint") if blanks >= self._blank_frames else []

    def _close_if_long(self, token: Token) -> list[Event]:
        """End a long segment in front of a token that begins a word: all words before it are whole."""
        tokens = self._segment.tokens
        limit = SEGMENT_SECONDS * SAMPLE_RATE // self._model.frame_samples
        if not tokens or token.frame - tokens[0].frame < limit:
            return []
        return self._close("limit") if self._model.vocabulary.starts_word(token, tokens[-1].frame) else []

    def _answer(self) -> list[Event]:
        """All uncommitted steps of the request have run: give what they found."""
        request, raw = self._request, self._trial_tokens
        assert request is not None
        new = self._reconciler.fork().filter(raw)
        samples, frame = self._model.frame_samples, -(-self._heard // self._model.frame_samples)
        silence_end = -(-(self._heard + self._model.flush_samples) // samples)
        spoken_until = frame + -(-self._model.delay_samples // samples)
        self._reconciler = self._reconciler.after_flush(raw, spoken_until, silence_end)
        events = self._close(request.reason, request.flush_id, new)
        if request.gap:
            self._timeline.shift(frame, request.gap)
        self._finalised = self._heard
        self._request = self._trial = None
        self._trial_tokens = []
        self._drain_inbox()
        return events

    def _close(self, reason: FinalReason, flush_id: int | None = None, more: list[Token] | None = None) -> list[Event]:
        words = self._segment.words(more or [])
        self._segment.tokens.clear()
        retracted = bool(self._shown) and not words
        self._shown = self._stable = ""
        if not words and flush_id is None and not retracted:
            return []
        here = self._heard + self._timeline.offset(self._heard // self._model.frame_samples)
        start, end = (words[0].start_sample, words[-1].end_sample) if words else (here, here)
        return [
            self.event(
                Final,
                text=text_of(words),
                words=words,
                start_sample=start,
                end_sample=end,
                reason=reason,
                flush_id=flush_id,
            )
        ]

    def _show(self, more: list[Token]) -> list[Event]:
        """An Interim if the text of the segment changed."""
        words: tuple[Word, ...] = self._segment.words(more)
        text = text_of(words)
        if text == self._shown:
            return []
        self._shown = text
        return [self.event(Interim, text=text, words=words)]

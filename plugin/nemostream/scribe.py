"""Tokens to what a stream's owner reads: interims, preflights, finals. When a segment ends by itself is decided here.

scribe = Scribe(model, event=stream.event, heard=lambda: feed.heard)
events = scribe.quiet(token.frame, blank_ms=400) + scribe.add(token) + scribe.show()
events += scribe.close("flush", flush_id=7, more=tokens)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nemostream.greedy import Token
from nemostream.model import Model
from nemostream.protocol import SAMPLE_RATE, Event, Final, FinalReason, Interim, Preflight, Word
from nemostream.transcript import Mark, Segment, Timeline, text_of

PREFLIGHT_FRAMES = 2
"""Blank frames (160 ms) behind unchanged text after which it is called stable."""
SEGMENT_SECONDS = 15
"""A longer segment is closed at the next word; one of twice the length, in a script without spaces, anywhere."""


@dataclass(slots=True)
class ScribeState:
    """A Scribe as plain data.

    Attributes:
        segment: number of the segment that is open.
        shown: its text as the owner has it.
        stable: its text as it was called stable.
        tokens: of that segment.
        given_until: transcript.Segment's.
        shifts, before: of transcript.Timeline.
        language: the last one that the model said it heard.
    """

    segment: int
    shown: str
    stable: str
    tokens: list[Token]
    given_until: int
    shifts: list[tuple[int, int]]
    before: int
    language: str | None


class Scribe:
    """The open segment of one stream.

    Attributes:
        segment, shown, stable, language: ScribeState's.
    """

    def __init__(self, model: Model, event: Callable[..., Event], heard: Callable[[], int]) -> None:
        """`event(kind, **fields)` makes a numbered event; `heard()` is how many samples the stream has heard."""
        self.segment = 0
        self.shown = ""
        self.stable = ""
        self.language: str | None = None
        self._frame_ms = model.frame_ms
        self._limit = SEGMENT_SECONDS * SAMPLE_RATE // model.frame_samples
        self._vocabulary = model.vocabulary
        self._timeline = Timeline(model.frame_samples, model.delay_samples)
        self._open = Segment(model.vocabulary, self._timeline)
        self._event = event
        self._heard = heard
        self._looked = False

    @property
    def idle(self) -> bool:
        """The segment is empty, and nothing of it was shown: a chunk without tokens changes nothing."""
        return not (self._open.tokens or self._looked)

    def jump(self, frame: int, samples: int) -> None:
        """From `frame` on the clock is ahead by `samples` more."""
        self._timeline.shift(frame, samples)

    def add(self, token: Token) -> list[Event]:
        """Put a token behind the segment, or first end one that has grown long: in front of a token that begins a
        word, so that all words before it are whole."""
        events: list[Event] = []
        tokens = self._open.tokens
        if tokens and token.frame - tokens[0].frame >= self._limit:
            starts = self._vocabulary.starts_word(token, tokens[-1].frame)
            if starts or token.frame - tokens[0].frame >= 2 * self._limit:
                events = self.close("limit")
        self._open.tokens.append(token)
        return events

    @property
    def empty(self) -> bool:
        """No token is in the segment: another one begins."""
        return not self._open.tokens

    def mark(self, mark: Mark) -> list[Event]:
        """The model said something that is no text."""
        self.language = mark.language or self.language
        return self.close(mark.reason) if mark.reason and self._open.tokens else []

    def quiet(self, frame: int, blank_ms: int | None) -> list[Event]:
        """End the segment if `blank_ms` of blank frames lie between its last token and `frame`."""
        if not self._open.tokens or blank_ms is None:
            return []
        blanks = frame - self._open.tokens[-1].frame - 1
        return self.close("endpoint") if blanks >= max(1, -(-blank_ms // self._frame_ms)) else []

    def look(self, more: Sequence[Token]) -> list[Event]:
        """Show the segment with what a look into an unfinished chunk has found."""
        self._looked = True
        return self._show(more)

    def committed(self, new: bool, end: int) -> list[Event]:
        """A chunk up to frame `end` was taken: show the segment, if it has `new` tokens or a look may have to be taken
        back, and call it stable once it stays as it is."""
        events: list[Event] = []
        if new or self._looked:
            self._looked = False
            events = self._show()
        tokens = self._open.tokens
        if tokens and end - tokens[-1].frame > PREFLIGHT_FRAMES and self.shown not in ("", self.stable):
            self.stable = self.shown
            words = self._open.words()
            events.append(self._hypothesis(Preflight, words))
        return events

    def close(self, reason: FinalReason, flush_id: int | None = None, more: Sequence[Token] = ()) -> list[Event]:
        """The Final of the segment; none if it is empty, nobody asked, and nothing shown must be taken back."""
        words = self._open.words(more)
        self._open.close(words)
        retracted = bool(self.shown) and not words
        self.shown = self.stable = ""
        self._looked = False
        if not words and flush_id is None and not retracted:
            return []
        here = self._heard() + self._timeline.total
        start, end = (words[0].start_sample, words[-1].end_sample) if words else (here, here)
        final = self._event(
            Final,
            text=text_of(words),
            words=words,
            start_sample=start,
            end_sample=end,
            reason=reason,
            flush_id=flush_id,
            segment=self.segment,
            language=self.language,
        )
        if words or flush_id is not None:
            # Not for a retraction: whether something was shown that is none after all depends on when steps ran, and
            # the numbers must not (ledger.py).
            self.segment += 1
        return [final]

    def export(self) -> ScribeState:
        return ScribeState(
            segment=self.segment,
            shown=self.shown,
            stable=self.stable,
            tokens=list(self._open.tokens),
            given_until=self._open.given_until,
            shifts=list(self._timeline.shifts),
            before=self._timeline.before,
            language=self.language,
        )

    def load(self, saved: ScribeState) -> None:
        """Go on where `saved` was exported."""
        self.segment, self.shown, self.stable = saved.segment, saved.shown, saved.stable
        self.language = saved.language
        # What a look into an unfinished chunk had shown may have to be taken back.
        self._looked = bool(saved.shown)
        self._open.tokens, self._open.given_until = list(saved.tokens), saved.given_until
        self._timeline.shifts, self._timeline.before = list(saved.shifts), saved.before

    def _show(self, more: Sequence[Token] = ()) -> list[Event]:
        """An Interim if the text of the segment changed."""
        words = self._open.words(more)
        text = text_of(words)
        if text == self.shown:
            return []
        self.shown = text
        return [self._hypothesis(Interim, words)]

    def _hypothesis(self, kind: type[Interim | Preflight], words: Sequence[Word]) -> Event:
        return self._event(kind, text=self.shown, words=words, segment=self.segment, language=self.language)

"""The engine's events as LiveKit's, in the order that its session relies on:

START_OF_SPEECH, (INTERIM | PREFLIGHT)*, FINAL+, END_OF_SPEECH, and again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from livekit.agents import LanguageCode, utils
from livekit.agents.stt import SpeechData, SpeechEvent, SpeechEventType
from livekit.agents.types import TimedString

from nemostream.protocol import AUTO, SAMPLE_RATE, Event, Final, Interim, Preflight, Word

GOES_ON = ("limit", "backchannel")
"""Reasons of finals behind which the speaker's turn does not end."""
POSSIBLE_LOSS = "possible_loss"
"""In the metadata of a final: the engine was lost under it, so a word may be missing or told otherwise."""


@dataclass(slots=True)
class Clock:
    """Places samples of the engine's stream in LiveKit's times.

    Attributes:
        origin: where the engine stream's sample 0 lies on the whole stream's clock (not 0 once it was reopened).
        offset: the stream's `start_time_offset` in seconds.
        heard: samples pushed so far, on the whole stream's clock.
        heard_at: wall clock at which the last of them arrived.
    """

    origin: int = 0
    offset: float = 0.0
    heard: int = 0
    heard_at: float = field(default_factory=time.time)

    def hear(self, samples: int) -> None:
        self.heard += samples
        self.heard_at = time.time()

    def seconds(self, sample: int) -> float:
        return (self.origin + sample) / SAMPLE_RATE + self.offset

    def wall(self, sample: int) -> float:
        """Seconds since the epoch at which `sample` was spoken, counted back from the newest audio: so neither the
        drift of the speaker's clock nor a pause in the audio adds up."""
        return self.heard_at - (self.heard - self.origin - sample) / SAMPLE_RATE


class EventMapper:
    """Keeps who-is-speaking between events; survives the engine stream being reopened.

    Attributes:
        joined: the engine stream was opened anew and hears again what no final gave; the next one says so.
    """

    def __init__(self, clock: Clock, speaker_id: str | None = None) -> None:
        self.language = LanguageCode("")
        self.joined = False
        self._speaker_id = speaker_id
        self._clock = clock
        self._speaking = False
        self._speech_end: float | None = None
        self._request_id = utils.shortuuid("nemo_")

    def map(self, event: Event) -> Iterator[SpeechEvent]:
        """The LiveKit events for one event of the engine; none for those that are not about speech."""
        if isinstance(event, (Interim, Preflight)):
            yield from self._hypothesis(event)
        elif isinstance(event, Final):
            yield from self._final(event)

    def _hypothesis(self, event: Interim | Preflight) -> Iterator[SpeechEvent]:
        if not event.text and not self._speaking:
            return
        preflight = isinstance(event, Preflight) and event.text
        start = event.words[0].start_sample if event.words else None
        yield from self._start(start)
        kind = SpeechEventType.PREFLIGHT_TRANSCRIPT if preflight else SpeechEventType.INTERIM_TRANSCRIPT
        end = event.words[-1].end_sample if event.words else None
        yield self._event(kind, self._data(event, start, end))
        if not event.text:
            # All that was shown of this segment has been retracted, and silence may follow without another event.
            yield from self._end(self._clock.heard - self._clock.origin)

    def _final(self, event: Final) -> Iterator[SpeechEvent]:
        if event.text:
            yield from self._start(event.start_sample)
            self._speech_end = self._clock.wall(event.end_sample)
        elif self._speaking and self._speech_end is None:
            # All that was shown has been retracted. An empty final would leave it standing as the session's interim.
            yield self._event(SpeechEventType.INTERIM_TRANSCRIPT, self._data(event, None, None))
        if event.text or event.flush_id is not None:
            # An empty final that was asked for is the answer that the session waits for.
            data = self._data(event, event.start_sample, event.end_sample)
            if event.text and (self.joined or not event.whole):
                data.metadata = {POSSIBLE_LOSS: True}
                self.joined = False
            yield self._event(SpeechEventType.FINAL_TRANSCRIPT, data, self._clock.wall(event.end_sample))
        if self._speaking and event.reason not in GOES_ON:
            yield from self._end(event.end_sample)

    def _start(self, sample: int | None) -> Iterator[SpeechEvent]:
        if self._speaking:
            return
        self._speaking = True
        self._speech_end = None
        started = None if sample is None else self._clock.wall(sample)
        yield SpeechEvent(SpeechEventType.START_OF_SPEECH, self._request_id, speech_start_time=started)

    def _end(self, sample: int) -> Iterator[SpeechEvent]:
        """END_OF_SPEECH; at `sample` unless a final has said where the speech ended."""
        end = self._speech_end if self._speech_end is not None else self._clock.wall(sample)
        yield SpeechEvent(SpeechEventType.END_OF_SPEECH, self._request_id, speech_end_time=end)
        self._speaking = False
        self._request_id = utils.shortuuid("nemo_")

    def _event(self, kind: SpeechEventType, data: SpeechData, speech_end: float | None = None) -> SpeechEvent:
        return SpeechEvent(kind, self._request_id, [data], speech_end_time=speech_end)

    def _data(self, event: Interim | Preflight | Final, start: int | None, end: int | None) -> SpeechData:
        language = spoken(event.language) if event.language else self.language
        return speech_data(language, event.text, event.words, start, end, self._clock, self._speaker_id)


def spoken(language: str) -> LanguageCode:
    """A language as LiveKit has it; none while the model finds it out itself."""
    return LanguageCode("" if language == AUTO else language)


def speech_data(
    language: LanguageCode,
    text: str,
    words: Sequence[Word],
    start: int | None,
    end: int | None,
    clock: Clock,
    speaker_id: str | None = None,
) -> SpeechData:
    """One alternative. `start` and `end` in samples of the engine's stream, None where nothing was said."""
    return SpeechData(
        language=language,
        text=text,
        start_time=0.0 if start is None else clock.seconds(start),
        end_time=0.0 if end is None else clock.seconds(end),
        confidence=sum(word.confidence for word in words) / len(words) if words else 0.0,
        speaker_id=speaker_id,
        words=[
            TimedString(
                word.text,
                start_time=clock.seconds(word.start_sample),
                end_time=clock.seconds(word.end_sample),
                confidence=word.confidence,
                start_time_offset=clock.offset,
                speaker_id=speaker_id,
            )
            for word in words
        ],
    )

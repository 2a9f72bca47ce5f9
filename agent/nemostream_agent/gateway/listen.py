"""WebSocket `/v1/listen` as Deepgram's live API has it: audio in an encoding or a container, KeepAlive, Finalize,
CloseStream; answers Results, SpeechStarted, UtteranceEnd, Metadata, Error.

Times are seconds of the audio that came. Finals tile it: each begins where the one before ended, the last ends with it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import msgspec
from starlette.datastructures import QueryParams

from nemostream.protocol import SAMPLE_RATE, Final, Interim, Preflight

from .dialect import Audio, Command, End, Finalize, KeepAlive, Messages
from .errors import BAD_DATA, Refusal
from .listen_query import flag, listen_options, pauses_count, utterance_end_ms
from .listen_results import alternative, metadata, model_info, model_uuid, seconds
from .session import Session
from .settings import StreamOptions

LOOK_MS = 500
"""Within a chunk and so much more a word that is said is shown: what the model looks ahead, and a step."""
CHANNEL = (0, 1)
"""The first of one: several are mixed."""


class _Message(msgspec.Struct):
    type: str


_decoder = msgspec.json.Decoder(_Message)
_COMMANDS: dict[str, Command] = {"KeepAlive": KeepAlive(), "Finalize": Finalize(), "CloseStream": End()}


class ListenDialect:
    """One connection's.

    Speech starts with the first word that is shown (SpeechStarted, if `vad_events`) and ends with any final but that of
    a segment that has grown too long. There is one UtteranceEnd for each gap of `utterance_end_ms` behind a final word:
    as soon as audio of that length and LOOK_MS came, in real time, and no word; at the latest before the next word, or
    at the end. Who sends faster than real time gets the same ones, later.
    """

    name = "listen"
    repeats = False

    def __init__(self, query: QueryParams, request_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises Refusal: a parameter has a value that means nothing."""
        options = listen_options(query)
        self.options: StreamOptions | None = options
        self._channels, self._model = options.channels, options.model
        self._pause = (options.endpointing and options.endpointing.blank_ms or 0) * SAMPLE_RATE // 1000
        self._interims, self._vad_events = flag(query, "interim_results"), flag(query, "vad_events")
        self._pauses_count = pauses_count(query)
        gap_ms = utterance_end_ms(query)
        self._gap = None if gap_ms is None else gap_ms * SAMPLE_RATE // 1000
        self._request_id, self._clock = request_id, clock
        self._session: Session | None = None
        self._sha256 = hashlib.sha256()
        self._covered = 0  # samples, by finals
        self._speaking = False
        self._last_word: int | None = None  # where it ended; None once its UtteranceEnd was sent
        self._silent_at = 0.0  # when it is certain that no word began within the gap

    def read(self, message: str | bytes) -> Command:
        if isinstance(message, bytes):
            self._sha256.update(message)
            return Audio(message) if message else End()
        try:
            return _COMMANDS[_decoder.decode(message).type]
        except (msgspec.MsgspecError, RecursionError, KeyError):
            kinds = ", ".join(_COMMANDS)
            about = f'a text message is {{"type": ...}} with one of {kinds}; not {message[:80]!r}'
            raise Refusal(400, BAD_DATA, "schema", about) from None

    def opened(self, session: Session) -> Messages:
        self._session = session
        return ()

    def heard(self, session: Session) -> Messages:
        if self._speaking or self._last_word is None or self._clock() < self._silent_at:
            return ()
        return self._utterance_end(_samples(session))

    def event(self, event: Interim | Preflight | Final) -> Messages:
        messages: list[str] = []
        if event.words and not isinstance(event, Preflight):
            messages += self._utterance_end(event.words[0].start_sample)
            if not self._speaking and self._vad_events:
                start = seconds(event.words[0].start_sample)
                messages.append(_json(type="SpeechStarted", channel=CHANNEL, timestamp=start))
            self._speaking = True
        if isinstance(event, Final):
            messages += self._final(event)
        elif isinstance(event, Interim) and event.words and self._interims:
            messages.append(self._results(event, event.words[-1].end_sample))
        return messages

    def ended(self, session: Session) -> Messages:
        end, messages = _samples(session), []
        if end > self._covered:
            messages.append(self._results(None, end, is_final=True))
        messages += self._utterance_end(end)
        bundle, created, digest = session.started.bundle, session.wall_time, self._sha256.hexdigest()
        whole = metadata(self._request_id, self._model, bundle, digest, created, session.seconds, self._channels)
        return [*messages, _json(type="Metadata", **whole)]

    def refused(self, error: Refusal) -> Messages:
        variant = "".join(part.title() for part in error.code.split("_")) + "Error"
        return (_json(type="Error", variant=variant, description=str(error), message=str(error)),)

    def _final(self, event: Final) -> Messages:
        assert self._session is not None
        over = self._speaking and event.reason != "limit"
        pause = event.reason == "endpoint"
        end = _samples(self._session) if event.reason == "end" else max(event.end_sample, self._covered)
        results = self._results(
            event,
            end,
            is_final=True,
            speech_final=over and (self._pauses_count or not pause),
            from_finalize=event.flush_id is not None,
        )
        self._covered = end
        self._speaking = self._speaking and not over
        if not event.words or self._gap is None:
            return [results]
        silence = self._pause if pause else 0
        look = (self._session.started.chunk_ms + LOOK_MS) * SAMPLE_RATE // 1000
        self._last_word = event.end_sample
        self._silent_at = self._clock() + seconds(self._gap - silence + look)
        return [results, *self._utterance_end(event.end_sample + silence)]

    def _utterance_end(self, silent_until: int) -> Messages:
        """If the gap behind the last word is as long: there is no word before that sample."""
        if self._gap is None or self._last_word is None or silent_until - self._last_word < self._gap:
            return ()
        end, self._last_word = seconds(self._last_word), None
        return (_json(type="UtteranceEnd", channel=CHANNEL, last_word_end=end),)

    def _results(self, event: Interim | Final | None, end: int, **flags: bool) -> str:
        assert self._session is not None
        text, words, language = (event.text, event.words, event.language) if event else ("", (), None)
        bundle = self._session.started.bundle
        return _json(
            type="Results",
            channel_index=CHANNEL,
            start=seconds(self._covered),
            duration=seconds(max(0, end - self._covered)),
            **{"is_final": False, "speech_final": False, "from_finalize": False, **flags},
            channel={"alternatives": [alternative(text, words, language)]},
            metadata={
                "request_id": self._request_id,
                "model_info": model_info(self._model, bundle),
                "model_uuid": model_uuid(bundle),
            },
        )


def _samples(session: Session) -> int:
    return round(session.seconds * SAMPLE_RATE)


def _json(**fields: object) -> str:
    return msgspec.json.encode(fields).decode()

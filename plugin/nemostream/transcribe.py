"""A file through the engine, without its thread: the same core, stepped as the audio is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, cast

import msgspec
import numpy as np

from nemostream import errors, subtitles
from nemostream.audio import read_audio
from nemostream.core import Core
from nemostream.model import Model
from nemostream.models import catalog
from nemostream.protocol import SAMPLE_RATE, Close, Event, Failed, Final, Interim, Open, Push, Refused, Word

BLOCK = SAMPLE_RATE // 10
"""Samples pushed at a time, so that interim results come as they would live."""

Write = Callable[[Event], None]


def open_file_stream(
    model: str | None,
    chunk_ms: int | None,
    decoder: str | None,
    precision: str | None,
    *,
    language: str | None = None,
    keyterms: Sequence[str] = (),
    skip_silence: bool = False,
    device: str = "cpu",
) -> Core:
    """A core with one stream open, number 1; what is asked for is Open's.

    Raises:
        NemostreamError: the model does not have it.
    """
    core = Core(max_streams=1, peek=False)
    core.add_model(model, Model.load(catalog.resolve(model), precision, None, device=device))
    chosen = cast(Literal["rnnt", "ctc"] | None, decoder)
    asked: dict[str, Any] = {"language": language, "keyterms": tuple(keyterms), "skip_silence": skip_silence}
    opened = Open(1, model, chunk_ms, decoder=chosen, priority="batch", **asked)
    core.handle(None, opened)
    _check(core.take_events().get(None, []))
    return core


def run(core: Core, source: Path | BinaryIO) -> Iterator[tuple[Sequence[Event], int, float | None]]:
    """Push the file; yields the events so far, the samples pushed, and the part of the file that was read.

    Raises:
        AudioError: the file cannot be read.
        NemostreamError: the stream failed.
    """
    pushed, part = 0, None
    for samples, part in read_audio(source):
        for block in np.split(samples, range(BLOCK, len(samples), BLOCK)):
            core.handle(None, Push(1, np.ascontiguousarray(block), pushed))
            pushed += len(block)
            yield _step(core), pushed, part
    core.handle(None, Close(1))
    yield _step(core), pushed, part


def writer(form: Literal["text", "json", "srt", "vtt"], out: TextIO) -> Write:
    """How events are written; every line is flushed, so that a pipe sees it at once."""
    number = 0

    def write(event: Event) -> None:
        nonlocal number
        if form == "json" and isinstance(event, Interim | Final):
            out.write(msgspec.json.encode(as_json(event)).decode() + "\n")
        elif isinstance(event, Final) and form == "text":
            out.write(event.text + "\n")
        elif isinstance(event, Final) and form in ("srt", "vtt"):
            for cue in subtitles.cues(event.words):
                number += 1
                out.write((subtitles.srt(number, cue) if form == "srt" else subtitles.vtt(cue)) + "\n")
        out.flush()

    if form == "vtt":
        out.write("WEBVTT\n\n")
    return write


def as_json(event: Interim | Final) -> dict[str, Any]:
    """The event as `transcribe --json` prints it, times in seconds; the language where the model says one."""
    words = [_word_json(w) for w in event.words]
    return {
        "type": "final" if isinstance(event, Final) else "interim",
        "text": event.text,
        "start": words[0]["start"] if words else None,
        "end": words[-1]["end"] if words else None,
        "words": words,
        **({"language": event.language} if event.language else {}),
    }


def _word_json(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "start": round(word.start_sample / SAMPLE_RATE, 3),
        "end": round(word.end_sample / SAMPLE_RATE, 3),
        "confidence": round(word.confidence, 4),
    }


def _step(core: Core) -> list[Event]:
    while core.step():
        pass
    events = core.take_events().get(None, [])
    _check(events)
    return events


def _check(events: Sequence[Event]) -> None:
    for event in events:
        if isinstance(event, Failed | Refused):
            raise getattr(errors, event.code, errors.NemostreamError)(event.message)

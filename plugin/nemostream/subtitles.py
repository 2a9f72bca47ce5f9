"""Words into cues, cues into SubRip and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nemostream.protocol import SAMPLE_RATE, Word
from nemostream.transcript import text_of

MAX_CHARACTERS = 84
"""Two lines of 42, what broadcasters' guides allow in a cue."""
MAX_SECONDS = 7.0


def cues(words: Sequence[Word]) -> Iterable[Sequence[Word]]:
    """The words of a segment in groups that fit a cue."""
    cue: list[Word] = []
    for word in words:
        long = cue and (word.end_sample - cue[0].start_sample) / SAMPLE_RATE > MAX_SECONDS
        if long or len(text_of([*cue, word])) > MAX_CHARACTERS and cue:
            yield cue
            cue = []
        cue.append(word)
    if cue:
        yield cue


def srt(number: int, cue: Sequence[Word]) -> str:
    """One SubRip cue."""
    start, end = _clock(cue[0].start_sample, ","), _clock(cue[-1].end_sample, ",")
    return f"{number}\n{start} --> {end}\n{text_of(cue)}\n"


def vtt(cue: Sequence[Word]) -> str:
    """One WebVTT cue; the file begins with "WEBVTT" and an empty line."""
    text = text_of(cue).replace("&", "&amp;").replace("<", "&lt;")
    return f"{_clock(cue[0].start_sample, '.')} --> {_clock(cue[-1].end_sample, '.')}\n{text}\n"


def _clock(sample: int, point: str) -> str:
    ms = sample * 1000 // SAMPLE_RATE
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"

"""One row of the table: a model heard in one way, over one set of clips."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.accuracy.edits import Interval
from bench.accuracy.hearing import Way
from bench.accuracy.judging import Judged


@dataclass(frozen=True, slots=True)
class Variant:
    """What is compared: a model in one precision, read by one of its decoders, and over which line it hears."""

    model: str
    precision: str
    decoder: str
    line: str = "file"

    def __str__(self) -> str:
        return ", ".join((self.model, self.precision, self.decoder, self.line))


@dataclass(frozen=True, slots=True)
class FlushCost:
    """hearing.answer_to_flush."""

    steps: float
    ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """Times in ms, None where no clip tells; `counted`: how many clips tell of first, final and sound_onset, and how
    many words of onset.

    Attributes:
        lead: seconds of silence before each clip.
        kind: which clips.
        words: in their references.
        first_p50, final_p50, onset, sound_onset: judging.Judged, medians.
        flush: None in a room.
    """

    variant: Variant
    chunk_ms: int
    lead: float
    kind: str
    clips: int
    words: int
    wer: Interval
    cer: Interval
    first_p50: float | None
    first_p95: float | None
    final_p50: float | None
    final_p95: float | None
    onset: float | None
    sound_onset: float | None
    counted: dict[str, int]
    flush: FlushCost | None


@dataclass(frozen=True, slots=True)
class Difference:
    """WER of `variant` minus that of `base`, of the same clips heard in the same way; and how many times as large it is
    (None: no errors in `base`)."""

    base: Variant
    variant: Variant
    chunk_ms: int
    lead: float
    kind: str
    wer: Interval
    times: float | None


def row_of(variant: Variant, way: Way, kind: str, judged: Judged, flush: FlushCost | None) -> Row:
    """`judged`: of the clips of that kind."""
    edits = judged.edits
    first, final, onsets, sound_onset = (
        [ms for its in column for ms in its]
        for column in (judged.first, judged.final, judged.onsets, judged.sound_onset)
    )
    return Row(
        variant=variant,
        chunk_ms=way.chunk_ms,
        lead=way.lead,
        kind=kind,
        clips=len(edits.words),
        words=int(edits.words.sum()),
        wer=Interval.of(edits.word_errors, edits.words, way.seed),
        cer=Interval.of(edits.character_errors, edits.characters, way.seed),
        first_p50=_median(first),
        first_p95=_p95(first),
        final_p50=_median(final),
        final_p95=_p95(final),
        onset=_median(onsets),
        sound_onset=_median(sound_onset),
        counted={"first": len(first), "final": len(final), "onset": len(onsets), "sound_onset": len(sound_onset)},
        flush=flush,
    )


def difference(base: Variant, before: Judged, variant: Variant, now: Judged, way: Way, kind: str) -> Difference:
    """Of the same clips."""
    errors, fewer = now.edits.word_errors, before.edits.word_errors
    wer = Interval.of_difference(errors, fewer, now.edits.words, way.seed)
    times = round(float(errors.sum() / fewer.sum()), 3) if fewer.any() else None
    return Difference(base, variant, way.chunk_ms, way.lead, kind, wer, times)


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 1) if values else None


def _p95(values: Sequence[float]) -> float | None:
    return round(float(np.quantile(values, 0.95)), 1) if values else None

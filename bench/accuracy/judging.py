"""What was heard against what is said, clip by clip: errors, waiting times, word times.

judged = Judged.of(clips, heard, begins)
judged.part([0, 5])        # of some clips
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jiwer

from bench.accuracy.edits import Edits, normalise
from bench.accuracy.hearing import Heard
from bench.accuracy.manifest import Clip
from nemostream.protocol import SAMPLE_RATE, Word

MS = SAMPLE_RATE // 1000


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Of each clip; times in ms, none where the word that they are about is not right.

    Attributes:
        first: from the begin of the first word's sound to the first text shown.
        final: from the end of the last word's sound to the Final.
        onsets: where each right word was said to begin, minus where CTC has it (alignment.py).
        sound_onset: where the first word was said to begin, minus where its sound begins.
    """

    edits: Edits
    first: list[list[float]]
    final: list[list[float]]
    onsets: list[list[float]]
    sound_onset: list[list[float]]

    @classmethod
    def of(cls, clips: Sequence[Clip], heard: Sequence[Heard], begins: Sequence[Sequence[int] | None] | None) -> Judged:
        """`begins`: alignment.word_begins; None: the words that were heard have no times."""
        judged = cls(Edits.of([c.text for c in clips], [h.text for h in heard]), [], [], [], [])
        for clip, its, aligned in zip(clips, heard, begins or [None] * len(clips), strict=True):
            right = dict(_right_words(normalise(clip.text).split(), its.words))
            shown = next((at for at in its.shown if at >= clip.begins), None)
            first, last = right.get(0), right.get(len(normalise(clip.text).split()) - 1)
            judged.first.append([(shown - clip.begins) / MS] if first and shown is not None else [])
            judged.final.append([(its.final - clip.ends) / MS] if last and its.final is not None else [])
            judged.onsets.append([(w.start_sample - aligned[i]) / MS for i, w in right.items()] if aligned else [])
            judged.sound_onset.append([(first.start_sample - clip.begins) / MS] if first and begins else [])
        return judged

    def part(self, clips: Sequence[int]) -> Judged:
        """Those of some clips."""
        columns = (self.first, self.final, self.onsets, self.sound_onset)
        return Judged(self.edits.part(clips), *([column[i] for i in clips] for column in columns))


def _right_words(reference: Sequence[str], words: Sequence[Word]) -> Iterator[tuple[int, Word]]:
    """Words that are right, with their number in the reference."""
    # What the model writes as one word may be two of the reference's; only the first has a begin.
    parts = [(part, word if k == 0 else None) for word in words for k, part in enumerate(normalise(word.text).split())]
    if not reference or not parts:
        return
    (chunks,) = jiwer.process_words(" ".join(reference), " ".join(part for part, _ in parts)).alignments
    for chunk in chunks:
        if chunk.type == "equal":
            for i in range(chunk.ref_end_idx - chunk.ref_start_idx):
                word = parts[chunk.hyp_start_idx + i][1]
                if word is not None:
                    yield chunk.ref_start_idx + i, word

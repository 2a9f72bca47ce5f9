"""Sentences as sound files for a fake microphone, and what a text is worth beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jiwer

from nemostream_agent.chromium import Pcm, write_wav
from nemostream_agent.demo.headless import silence_behind
from nemostream_agent.participant import RATE, read_clip
from tests.clips import TEXTS, path
from tests.gateway.clients import by_file

LEAD = 4.0
"""Seconds of silence in which a page connects, before the sentence."""
TAIL = 2.0
TIMES_THE_FILE = 1.5
"""Errors that are allowed, for each one that the same clip has as a file."""


@dataclass(frozen=True)
class Sentence:
    """One of our clips.

    Attributes:
        name: of the clip.
        sound: a WAV file of it, with silence around.
        lead, tail: seconds of that.
    """

    name: str
    sound: Path
    lead: float = LEAD
    tail: float = TAIL

    @classmethod
    def make(cls, name: str, folder: Path, lead: float = LEAD, tail: float = TAIL) -> Sentence:
        return cls(name, write_wav(folder / f"{name}.wav", read_clip(path(name)), RATE, lead, tail), lead, tail)

    @cached_property
    def pcm(self) -> Pcm:
        """Samples (N,) at 48 kHz, without the silence around."""
        return read_clip(path(self.name))

    @property
    def text(self) -> str:
        return TEXTS[self.name]

    def ends_ms(self, microphone_ms: float) -> float:
        """Unix time at which its last word ends, of a microphone that was opened then."""
        return microphone_ms + 1000 * (self.lead + (len(self.pcm) - silence_behind(self.pcm)) / RATE)

    @property
    def seconds(self) -> float:
        """Of the file."""
        return self.lead + len(self.pcm) / RATE + self.tail

    def is_heard_in(self, text: str) -> bool:
        """At most TIMES_THE_FILE of the errors that the engine makes of the same sound as a file."""
        return float(jiwer.wer(self.text, text or "-")) <= TIMES_THE_FILE * self._file_wer

    @cached_property
    def _file_wer(self) -> float:
        pcm = read_clip(self.sound, 16_000)
        return float(jiwer.wer(self.text, by_file(pcm.tobytes(), chunk_ms=160)))

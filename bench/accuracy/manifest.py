"""Clips and what is said in them, as a manifest lists them.

clips = read(Path("corpus_en_heldout"), count=240)
sets(clips, general)     # {"all": [0, 1, ...], "templates": [...], "general": [...]}
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.accuracy.edits import normalise
from nemostream.audio import read_audio
from nemostream.protocol import SAMPLE_RATE, Samples

LOUD = 0.05
"""Speech begins with the first sample above this part of its clip's peak, and ends with the last one."""


class _Entry(NamedTuple):
    """A line of a manifest, in samples; `length` None: to the end."""

    audio: Path
    start: int
    length: int | None
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """`samples` (n,) float32 at 16 kHz. Speech lies between the samples `begins` and `ends`."""

    samples: Samples
    text: str
    begins: int
    ends: int

    @classmethod
    def of(cls, samples: Samples, text: str) -> Clip:
        level = np.abs(samples)
        loud = np.flatnonzero(level > LOUD * level.max(initial=0.0))
        begins, ends = (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, len(samples))
        return cls(samples, text, begins, ends)


def read(path: Path, count: int | None = None) -> list[Clip]:
    """`count` clips (None: all) of a manifest, evenly spread over it.

    Args:
        path: a .jsonl, or a folder with manifest.jsonl or shards (NNNN.jsonl). A line has "text", "audio" (or NeMo's
            "audio_filepath", relative to the manifest), and where several clips share a file "start" (or "offset") and
            "duration" in seconds.

    Raises:
        ValueError: there is no manifest, or it is none.
        AudioError: a recording cannot be read.
    """
    entries = [entry for file in _files(path) for entry in _entries(file)]
    if not entries:
        raise ValueError(f"{path} lists no clips; give a manifest of at least one line")
    count = min(count or len(entries), len(entries))
    chosen = [entries[i * len(entries) // count] for i in range(count)]
    recordings = {file: np.concatenate([b for b, _ in read_audio(file)]) for file in {e.audio for e in chosen}}
    clips: list[Clip] = []
    for audio, start, length, text in chosen:
        samples = recordings[audio][start : None if length is None else start + length]
        if not len(samples):
            raise ValueError(f"{audio} ends before {start / SAMPLE_RATE:g} s, where {path} has the clip {text!r}")
        clips.append(Clip.of(samples, text))
    return clips


def sets(clips: Sequence[Clip], general: Collection[str]) -> dict[str, list[int]]:
    """The clips of each set, by their number: a sentence (normalised) that is in `general`, or one of a template; and
    all together. Where all are of one kind there is only that one set."""
    kinds: dict[str, list[int]] = {"all": list(range(len(clips))), "templates": [], "general": []}
    for i, clip in enumerate(clips):
        kinds["general" if normalise(clip.text) in general else "templates"].append(i)
    if not kinds["templates"] or not kinds["general"]:
        return {"all": kinds["all"]}
    return kinds


def sentences(path: Path) -> frozenset[str]:
    """The normalised sentences of a text file of one a line.

    Raises:
        ValueError: there is no such file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give a file of one sentence a line") from error
    return frozenset(map(normalise, lines))


def _files(path: Path) -> list[Path]:
    found = [path] if path.is_file() else [path / "manifest.jsonl"]
    if not found[0].is_file():
        found = sorted(path.glob("*[0-9].jsonl"))
    if not found:
        raise ValueError(f"{path} is no manifest: give a .jsonl, or a folder with manifest.jsonl or NNNN.jsonl")
    return found


def _entries(file: Path) -> list[_Entry]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no manifest: it is not text") from error
    entries: list[_Entry] = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(_entry(file.parent, json.loads(line)))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else "it is no object of JSON as it should be"
            raise ValueError(f"{file}, line {number}: {what}; a line has text, audio, start and duration") from error
    return entries


def _entry(folder: Path, row: dict[str, Any]) -> _Entry:
    audio = row["audio"] if "audio" in row else row["audio_filepath"]
    start = row.get("start", row.get("offset", 0.0))
    length = round(row["duration"] * SAMPLE_RATE) if "duration" in row else None
    return _Entry(folder / audio, round(start * SAMPLE_RATE), length, str(row["text"]))

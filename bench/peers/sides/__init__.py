"""What each program under comparison must be able to do, in a process and an environment of its own.

side.open(16); took = side.step()               # one chunk of each of 16 streams
side.transcribe(clips)                          # what it writes
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
SAMPLE_RATE = 16_000
SPREAD_SAMPLES = 7 * SAMPLE_RATE + 500
"""How far apart in the talk neighbouring streams are: no two are in the same word, nor at the same place of a frame."""


@dataclass(frozen=True)
class Task:
    """What one process is about.

    Attributes:
        side: a module of this package.
        precision: a variant that the side knows.
        files: the model as the side takes it: a folder or a file.
        chunk_ms: audio of a step.
        talk: .npy with the audio that the streams hear while they are timed.
        clips: .npz with the audio that is transcribed.
        cpu: the core that all its threads stay on.
    """

    side: str
    precision: str
    files: str
    chunk_ms: int
    talk: str
    clips: str
    cpu: int

    @property
    def chunk_samples(self) -> int:
        return self.chunk_ms * SAMPLE_RATE // 1000


@dataclass(frozen=True)
class Took:
    """What one chunk of all streams cost. CPU time is all of the process's: on one core that nobody else uses it is the
    time that passes, and on a busy one it does not count the others.

    Attributes:
        features: CPU seconds for samples to mel frames.
        step: CPU seconds from there to tokens, with all that the program does to state.
        passed: the seconds that passed during the step.
    """

    features: float
    step: float
    passed: float


class Clock:
    """Both clocks, from its making on."""

    def __init__(self) -> None:
        self._passed, self._cpu = time.perf_counter(), time.process_time()

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu

    @property
    def passed(self) -> float:
        return time.perf_counter() - self._passed


class Side(Protocol):
    """One program with a model loaded, on one thread."""

    versions: dict[str, str]

    def open(self, streams: int) -> None:
        """Begin so many new streams, each at another place of the talk; those before are given up."""

    def step(self) -> Took:
        """One chunk for every stream, as a batch."""

    def transcribe(self, clips: list[Samples]) -> list[str]:
        """The text of each clip, one stream each, all of them in a batch. Each side leaves out as much of the silence
        in front (ALIGN_SAMPLES at most) as puts its mel frames and chunks where the others' are: else text differs
        because chunks begin elsewhere in a word."""


ALIGN_SAMPLES = 2 * 1280 + 80
"""sherpa-onnx begins two encoder frames later, and its mel frames lie half a hop later, than this project's."""


class Talk:
    """Streams of audio without end: the talk over and over, each stream from another place on."""

    def __init__(self, samples: Samples, streams: int) -> None:
        self._samples = samples
        self._at = [i * SPREAD_SAMPLES for i in range(streams)]

    def next(self, stream: int, count: int) -> Samples:
        """(count,): what that stream hears next."""
        begin = self._at[stream] % len(self._samples)
        self._at[stream] += count
        piece = self._samples[begin : begin + count]
        if len(piece) < count:
            piece = np.concatenate([piece, self._samples[: count - len(piece)]])
        return piece


def pieces_to_text(pieces: list[str]) -> str:
    """SentencePiece's pieces joined."""
    return "".join(pieces).replace("\u2581", " ").strip()


def version(package: str) -> str:
    """Of an installed distribution."""
    from importlib.metadata import version as installed

    return installed(package)


Reply = dict[str, Any]

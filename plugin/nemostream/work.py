"""What a stream asks of a step for its row."""

from __future__ import annotations

from dataclasses import dataclass

from nemostream.encoders import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One row of a step.

    Attributes:
        mel: (8T, n_mels) frames of the chunk.
        frames: encoder frames of it to decode.
        committed: the step belongs to the stream's true course.
        save: before this step the row's small state is to be saved (the first uncommitted step).
        restore: after this step the row is to be put back to what was saved (the last uncommitted step).
        peek: nothing is kept at all: only interim text comes of it.
    """

    mel: Floats
    frames: int
    committed: bool = True
    save: bool = False
    restore: bool = False
    peek: bool = False

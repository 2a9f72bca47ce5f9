"""What a stream asks of a step for its row."""

from __future__ import annotations

from dataclasses import dataclass

from nemostream.protocol import Samples


@dataclass(slots=True, eq=False)
class Work:
    """One row of a step.

    Attributes:
        samples: those that the 8T mel frames of the chunk are made of (MelFilters.span); a view that the next push may
            change.
        frames: encoder frames of it to decode.
        first: it is the stream's first chunk: its first mel frames lie before the stream, where there is nothing.
        committed: the step belongs to the stream's true course.
        save: before this step the row's small state is to be saved (the first uncommitted step).
        restore: after this step the row is to be put back to what was saved (the last uncommitted step).
        peek: nothing is kept at all: only interim text comes of it.
    """

    samples: Samples
    frames: int
    first: bool = False
    committed: bool = True
    save: bool = False
    restore: bool = False
    peek: bool = False

"""The messages between a stream's owner and the engine: plain data, the same in process and over a socket.

Times are sample counts at 16 kHz on the stream's own clock: sample 0 is the first one pushed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
AUTO = "auto"
"""The language of a stream whose model finds it out itself, as NVIDIA's multilingual models can."""
Samples = npt.NDArray[np.float32]
Pcm = npt.NDArray[np.int16]
INT16, FLOAT32 = np.dtype(np.int16), np.dtype(np.float32)
FULL_SCALE = np.float32(32768)
"""The int16 sample that would be 1.0."""
Priority = Literal["live", "batch"]
FinalReason = Literal["endpoint", "eou", "backchannel", "flush", "gap", "idle", "limit", "end"]
"""Why a segment ended. `eou` and `backchannel` are what the model said itself: the end of an utterance, and that of an
"uh-huh" after which it is still the other's turn."""


@dataclass(frozen=True, slots=True)
class Endpointing:
    """When a segment ends without being asked to.

    Attributes:
        blank_ms: run of blank frames behind the last token that ends the segment; None turns it off.
        vad_ms: silence, as the voice activity detector hears it, that ends the segment; None leaves the detector off.
    """

    blank_ms: int | None = 400
    vad_ms: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("blank_ms", self.blank_ms), ("vad_ms", self.vad_ms)):
            if value is not None and (not isinstance(value, int) or value <= 0):
                raise ValueError(f"{name} is a time in ms above 0, or None for off; not {value!r}")


NO_ENDPOINT = Endpointing(blank_ms=None)
"""Only requests (flush, mute, close) end a segment."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word; `start_sample` and `end_sample` on the stream's clock, `confidence` in 0..1."""

    text: str
    start_sample: int
    end_sample: int
    confidence: float


# --- to the engine ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """Open `stream` (a number its owner chose). Answered by Started or Refused.

    `model`: a name or a bundle path, None for the default; `chunk_ms`: None for the bundle's default;
    `decoder`: "rnnt" or "ctc", None for the bundle's default; `endpointing`: None for the bundle's default; `keyterms`:
    words and phrases that are said more often here than elsewhere; `skip_silence`: long silence is not run through the
    model; `recoverable`: send Checkpoints; `resume`: go on where that snapshot was taken (the same model, chunk size
    and decoder, or Refused with SnapshotError).
    """

    stream: int
    model: str | None = None
    chunk_ms: int | None = None
    language: str | None = None
    decoder: Literal["rnnt", "ctc"] | None = None
    endpointing: Endpointing | None = None
    keyterms: tuple[str, ...] = ()
    skip_silence: bool = False
    priority: Priority = "live"
    recoverable: bool = False
    resume: bytes | None = None


@dataclass(frozen=True, slots=True)
class Push:
    """Audio: mono at 16 kHz, float32 in -1..1 or int16, any length; `at_sample` is the clock time of its first one."""

    stream: int
    samples: Samples | Pcm
    at_sample: int


@dataclass(frozen=True, slots=True)
class Gap:
    """`samples` of time for which there is no audio. Pending text is finalised when the gap is long."""

    stream: int
    samples: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Ask for a Final now; exactly one Final carries `flush_id` back, empty if nothing is pending."""

    stream: int
    flush_id: int


@dataclass(frozen=True, slots=True)
class Mute:
    """No audio will come for a while: finalise what is pending, cost no compute until audio is pushed again."""

    stream: int


@dataclass(frozen=True, slots=True)
class Unmute:
    """Audio comes again."""

    stream: int


@dataclass(frozen=True, slots=True)
class Update:
    """Change a live stream, behind all audio so far; None leaves a thing as it is. `endpointing` counts from the next
    frame on, `language` from the next chunk on, `keyterms` from the next segment on."""

    stream: int
    endpointing: Endpointing | None = None
    language: str | None = None
    keyterms: tuple[str, ...] | None = None


def updated(opened: Open, change: Update) -> Open:
    """`opened` as if the stream had been opened with what `change` asks for."""
    fields = {name: getattr(change, name) for name in ("endpointing", "language", "keyterms")}
    return dataclasses.replace(opened, **{name: value for name, value in fields.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Close:
    """The end of a stream. With `drain` what is pending is finalised first (a Final with reason "end" if there is
    text), else it is dropped; Ended is the last event in either case. With `keep` a Checkpoint comes before it, for the
    owner to go on with in another stream (`Open.resume`): the clock and all that was heard, without pending text; none
    if a request was half answered."""

    stream: int
    drain: bool = True
    keep: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Pushes:
    """A Push each for several streams, in order, as columns: what a process has heard in a tick.

    `streams`, `at_samples`: Push's; `lengths`: samples of each; `samples`: all of them, one behind the other.
    """

    streams: Sequence[int]
    at_samples: Sequence[int]
    lengths: Sequence[int]
    samples: Samples | Pcm

    @classmethod
    def of(cls, pushes: Sequence[Push]) -> Pushes:
        """Those, at least one, whose samples are of one kind."""
        samples = np.concatenate([p.samples for p in pushes])
        return cls([p.stream for p in pushes], [p.at_sample for p in pushes], [len(p.samples) for p in pushes], samples)

    def __len__(self) -> int:
        return len(self.streams)

    def each(self) -> list[Push]:
        """One by one."""
        ends = itertools.accumulate(self.lengths)
        columns = zip(self.streams, self.at_samples, self.lengths, ends, strict=True)
        return [Push(stream, self.samples[end - length : end], at) for stream, at, length, end in columns]


Message = Open | Push | Gap | Flush | Mute | Unmute | Update | Close


# --- from the engine -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """What every event carries: its stream, the generation of the stream's row, and a number that grows by one."""

    stream: int
    generation: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The stream has a row. `wall_time`: seconds since the epoch when it was opened; `chunk_ms` as it was chosen;
    `at_sample`: its clock, 0 unless it resumes."""

    bundle: str
    language: str
    chunk_ms: int
    wall_time: float
    at_sample: int = 0


@dataclass(frozen=True, slots=True)
class Interim(Event):
    """The whole text of the current segment so far. `segment`: how many Finals with words, or with a flush's id, came
    before; `language`: the last one that the model said it heard, None if it says none."""

    text: str
    words: tuple[Word, ...]
    segment: int = 0
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Preflight(Event):
    """The text of the segment has not changed for a while; it will probably be the Final. The fields are Interim's."""

    text: str
    words: tuple[Word, ...]
    segment: int = 0
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Final(Event):
    """A segment's text, never changed afterwards. `end_sample` is where speech ended (the last word's end), or the
    sample at which an empty Final was asked for. `whole`: False where audio was lost on the way to the engine, so words
    may be missing from it. `language`: Interim's."""

    text: str
    words: tuple[Word, ...]
    start_sample: int
    end_sample: int
    reason: FinalReason
    flush_id: int | None = None
    segment: int = 0
    whole: bool = True
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Usage(Event):
    """Samples of audio heard since the last Usage, and since the stream's begin. There is one every 5 s. What waits
    behind the next chunk counts in the last one only: who sends faster than the engine runs sees how far that is."""

    samples: int
    total: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint(Event):
    """The state of a recoverable stream, for `Open.resume` (snapshot.py): after all events before this one, and after
    `taken` more messages than the Checkpoint before it, or the Open, covered."""

    taken: int
    snapshot: bytes


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """The stream is closed and its row is free."""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The stream is closed because of an error. `code`: the name of the error class; `retryable`: opening again may
    help."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The stream was not opened. `retry_after` in seconds, None where trying again is pointless."""

    code: str
    message: str
    retry_after: float | None

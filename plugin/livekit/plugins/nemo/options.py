"""What an STT is asked for, checked as far as it can be without loading a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from livekit.agents import LanguageCode

from nemostream.keyterms import MAX_CHARACTERS, MAX_TERMS
from nemostream.models import catalog
from nemostream.protocol import Endpointing

FRAME_MS = 80
"""One encoder frame: every chunk size and every endpointing threshold is heard in these steps."""


@dataclass(frozen=True, slots=True)
class STTOptions:
    """Options of a stream; None where the bundle decides.

    Raises:
        ValueError: an option that no bundle could satisfy.
    """

    model: str | None = None
    chunk_ms: int | None = None
    language: LanguageCode | None = None
    endpointing: Endpointing | None = None
    keyterms: tuple[str, ...] = ()
    skip_silence: bool = False

    def __post_init__(self) -> None:
        if self.model is not None and not self.model.strip():
            raise ValueError("model must be a name or a path, not an empty string")
        if self.model is not None and catalog.named(self.model) is None and Path(self.model).expanduser().exists():
            # A path, and the engine's process has a working directory of its own.
            object.__setattr__(self, "model", str(Path(self.model).expanduser().absolute()))
        if self.chunk_ms is not None and (self.chunk_ms <= 0 or self.chunk_ms % FRAME_MS):
            raise ValueError(f"chunk_ms must be a multiple of {FRAME_MS} ms, not {self.chunk_ms}")
        if self.language is not None and not self.language:
            raise ValueError("language must be a code such as 'en' or 'en-US', not an empty string")
        if any(not isinstance(term, str) or not 0 < len(term.strip()) <= MAX_CHARACTERS for term in self.keyterms):
            raise ValueError(f"keyterms must be words or phrases of 1 to {MAX_CHARACTERS} characters")
        if len(self.keyterms) > MAX_TERMS:
            raise ValueError(f"keyterms may be {MAX_TERMS} at most, not {len(self.keyterms)}")
        if self.endpointing is None:
            return
        if not isinstance(self.endpointing, Endpointing):
            raise ValueError(f"endpointing must be an Endpointing, not {self.endpointing!r}")
        for name in ("blank_ms", "vad_ms"):
            value = getattr(self.endpointing, name)
            if value is not None and value < FRAME_MS:
                raise ValueError(f"endpointing.{name} must be None (off) or at least {FRAME_MS} ms, not {value}")

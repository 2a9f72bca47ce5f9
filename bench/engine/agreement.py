"""What each stream would have said alone, and how much of what it said beside others is the same.

reference = Reference(path, "onnx")
reference.tokens(samples, chunk_ms=160)      # {(frame, nth token on it, id), ...}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nemostream.greedy import Token
from nemostream.model import Model
from nemostream.protocol import Samples
from tests.engine.driver import Driver

Placed = frozenset[tuple[int, int, int]]
"""Tokens as (frame, how many came before it on that frame, id)."""


def placed(tokens: Iterable[tuple[int, int]]) -> Placed:
    """(frame, id) pairs in order."""
    seen: Counter[int] = Counter()
    found: list[tuple[int, int, int]] = []
    for frame, token in tokens:
        found.append((frame, seen[frame], token))
        seen[frame] += 1
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of `streams` that were compared: the parts of them, and of their tokens, that are equal. `tokens`: how many the
    reference has."""

    streams: int
    streams_equal: float
    tokens: int
    tokens_equal: float


def agreement(pairs: Sequence[tuple[Placed, Placed]]) -> Agreement:
    """Of (reference, found) pairs. A token is equal if it has the same id on the same frame; those that only one side
    has count against it."""
    same = sum(len(a & b) for a, b in pairs)
    most = sum(max(len(a), len(b)) for a, b in pairs)
    return Agreement(
        streams=len(pairs),
        streams_equal=sum(a == b for a, b in pairs) / len(pairs),
        tokens=sum(len(a) for a, _ in pairs),
        tokens_equal=same / most if most else 1.0,
    )


@dataclass(slots=True)
class Reference:
    """The model in fp32, or as the bundle holds it, one stream at a time and one thread; answers are kept."""

    path: Path
    encoder: str
    precision: str = ""
    _model: Model | None = None
    _known: dict[tuple[int, int, int], Placed] = field(default_factory=dict)

    def tokens(self, stream: int, samples: Samples, chunk_ms: int) -> Placed:
        """`stream` names the samples: the same number, the same audio."""
        key = stream, len(samples), chunk_ms
        if key not in self._known:
            driver = Driver(self._loaded(), max_streams=1, chunk_ms=chunk_ms)
            driver.open(0)
            driver.push(0, samples)
            found: list[Token] = driver.tokens[0]
            self._known[key] = placed((token.frame, token.id) for token in found)
        return self._known[key]

    def _loaded(self) -> Model:
        if self._model is None:
            from nemostream.models.bundle import load_bundle

            held = load_bundle(self.path).info.precisions
            self._model = Model.load(self.path, "fp32" if "fp32" in held else held[0], 1, self.encoder)
            self.precision = self._model.precision
        return self._model

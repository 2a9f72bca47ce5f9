"""A model heard in every way that is asked for.

for variant, way, judged, flush in Sweep(clips, chunks_ms=[160], ...).of("en-starter", path, precision=None): ...
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.accuracy.alignment import word_begins
from bench.accuracy.hearing import Way, answer_to_flush, hear
from bench.accuracy.judging import Judged
from bench.accuracy.manifest import Clip
from bench.accuracy.row import FlushCost, Variant
from nemostream.model import Model


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """`decoders`: None stands for the bundle's default; `losses`: a room for each, which loses that part of packets."""

    clips: Sequence[Clip]
    chunks_ms: Sequence[int]
    decoders: Sequence[str | None]
    leads: Sequence[float]
    losses: Sequence[float]
    rows: int
    threads: int | None
    seed: int

    def of(
        self, name: str, path: Path, precision: str | None
    ) -> Iterator[tuple[Variant, Way, Judged, FlushCost | None]]:
        """Of files first. What the model lacks is said before anything is heard.

        Raises:
            NemostreamError: the model cannot be loaded, or has no such chunk size or decoder.
        """
        model = Model.load(path, precision, self.threads)
        for chunk_ms in self.chunks_ms:
            model.chunk_frames(chunk_ms)
        variants = [Variant(name, model.precision, model.decoder_name(decoder)) for decoder in self.decoders]
        begins = word_begins(model, self.clips)
        for variant in variants:
            for way in self._ways(variant):
                flush = FlushCost(*answer_to_flush(model, self.clips, way))
                yield variant, way, Judged.of(self.clips, hear(model, self.clips, way), begins), flush
        del model
        for loss in self.losses:
            line = f"room, {loss:.0%} lost" if loss else "room"
            for way in self._ways(variants[0]):
                yield replace(variants[0], line=line), way, self._in_room(path, precision, loss, way), None

    def _ways(self, variant: Variant) -> list[Way]:
        return [
            Way(chunk_ms, variant.decoder, lead, self.rows, self.seed)
            for chunk_ms in self.chunks_ms
            for lead in self.leads
        ]

    def _in_room(self, path: Path, precision: str | None, loss: float, way: Way) -> Judged:
        from bench.accuracy.rooms import Room  # needs the agent's packages, which files do not

        room = Room(path, precision, self.threads, loss)
        heard = room.hear(self.clips, way)
        print(f"bench.accuracy: {room.lost:.1%} of {room.sent} packets were lost", file=sys.stderr)
        return Judged.of(self.clips, heard, None)

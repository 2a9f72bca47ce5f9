"""All streams of one model and chunk size: their rows of state, and the step that runs them as a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nemostream.boosting import BoostingTree
from nemostream.encoders import EncoderRows, Floats, Indices, RowState
from nemostream.errors import SnapshotError, StepFailed
from nemostream.greedy import Decoder, Token
from nemostream.lanes import FRONT_FRAMES, Lane, Lanes
from nemostream.rows import Rows
from nemostream.scheduler import Load, Slot
from nemostream.work import Batch

if TYPE_CHECKING:
    from nemostream.model import Model

logger = logging.getLogger("nemostream")


@dataclass(slots=True)
class Counters:
    """What a group has done, for tests and metrics."""

    steps: int = 0
    retries: int = 0


Meanwhile = Callable[[], None] | None
"""What is to be done while a device computes. It may put audio into lanes, and change nothing else of a group."""

Outcome = list[Token] | StepFailed
"""What a step gave one row: its tokens, or the reason why it has none."""


class Group:
    """Rows of the encoder and of each decoder in use, numbered alike."""

    def __init__(
        self, key: Hashable, model: Model, chunk_frames: int, capacity: int, max_batch: int | None = None
    ) -> None:
        self.model = model
        self.chunk_frames = chunk_frames
        self.counters = Counters()
        self.rows: Rows[Hashable] = Rows(capacity, self._move)
        self.lanes = Lanes(model.mel, chunk_frames, capacity)
        self._max_batch = min(capacity, max_batch or capacity)
        self._decoder_of: list[str] = []
        chunk_seconds = chunk_frames * model.frame_ms / 1000
        self.load = Load(key, chunk_seconds, dense=self._make_room(), max_batch=max_batch)

    def _make_room(self) -> bool:
        """What the rows are made of; whether they are dense (EncoderRows)."""
        model, capacity = self.model, self.rows.capacity
        spare = model.spare_frames(self.chunk_frames)
        self._encoder: EncoderRows = model.backend.rows(self.chunk_frames, capacity, spare)
        self._decoders: dict[str, Decoder] = {}
        self._saved: dict[Hashable, tuple[Any, Any]] = {}
        self._riding: Floats = np.zeros((0, 0, 0), np.float32)
        return self._encoder.dense

    def take(
        self,
        owner: Hashable,
        decoder: str,
        slot: Slot,
        state: RowState | None = None,
        lane: Lane | None = None,
        boost: BoostingTree | None = None,
    ) -> int | None:
        """A row for `owner`, fresh or as `state` says; returns its generation, or None when every row is taken. Its
        samples are those of `lane`, if they are to come from `lanes`; `boost` favours its keyterms.

        Raises:
            SnapshotError: the state is damaged, or of another model, chunk size or decoder. No row was taken.
            EngineFull: there is no memory for its decoder or its keyterms. No row was taken.
        """
        self._admit(decoder)
        if state is not None:
            self._check(decoder, state)
        taken = self.rows.take(owner)
        if taken is None:
            return None
        row, generation = taken
        try:
            self._enter(row, decoder, state, boost)
        except BaseException:
            self.rows.leave(owner)
            raise
        self._decoder_of.append(decoder)
        self.load.add(slot)
        self.lanes.add(lane)
        return generation

    def _admit(self, decoder: str) -> None:
        """Make sure that rows can have that decoder."""
        if decoder not in self._decoders:
            self._decoders[decoder] = self.model.decoder(decoder, self.rows.capacity)

    def _enter(self, row: int, decoder: str, state: RowState | None, boost: BoostingTree | None) -> None:
        """Make `row` a fresh one, or the one that was exported."""
        if state is None:
            self._encoder.reset(row)
            self._decoders[decoder].reset(row)
        else:
            self._encoder.load(row, state.encoder_row)
            self._decoders[decoder].load(row, state.decoder_row)
        self._decoders[decoder].boost(row, boost, keep=state is not None)

    def boost(self, owner: Hashable, tree: BoostingTree | None) -> None:
        """Favour other keyterms in the owner's row from now on, or none."""
        row = self.rows.row(owner)
        self._decoder(row).boost(row, tree)

    def export(self, owner: Hashable) -> RowState:
        """A copy of the owner's row, for `take`. Not between the first and the last uncommitted step of a request."""
        assert owner not in self._saved, "a row in the middle of uncommitted steps cannot leave"
        row = self.rows.row(owner)
        return RowState(
            self._decoder_of[row], self.chunk_frames, self._encoder.export(row), self._decoder(row).export(row)
        )

    def _check(self, decoder: str, state: RowState) -> None:
        saved, wanted = (state.decoder, state.chunk_frames), (decoder, self.chunk_frames)
        for name, found, here in zip(("decoder", "chunk size in frames"), saved, wanted, strict=True):
            if found != here:
                raise SnapshotError(f"the saved state has {name} {found}, not {here}; open the stream without it")
        self._check_rows(decoder, state)

    def _check_rows(self, decoder: str, state: RowState) -> None:
        self._encoder.check(state.encoder_row)
        self._decoders[decoder].check(state.decoder_row)

    def leave(self, owner: Hashable) -> None:
        """Free the owner's row."""
        row = self.rows.row(owner)
        self._forget(owner, row)
        self.load.remove(row)
        self.lanes.remove(row)
        self.rows.leave(owner)
        self._decoder_of[row] = self._decoder_of[-1]
        self._decoder_of.pop()

    def _forget(self, owner: Hashable, row: int) -> None:
        """Of an owner who leaves nothing stays but what is in its row."""
        self._saved.pop(owner, None)

    def wait(self, rows: Indices, now: float) -> None:
        """Those of these rows that hold a chunk wait for a step; of audio alone, so nothing else hurries them."""
        self.load.wait(rows[self.lanes.ready(rows)].tolist(), now)
        for row in rows[self.lanes.behind(rows)].tolist():
            self.load.slots[row].wait(now, behind=True)

    def run(self, batch: Batch, dense: int | None, meanwhile: Meanwhile = None) -> list[Outcome]:
        """Run one chunk for each row. With `dense` the first n rows are the encoder's batch and those without work ride
        along, keeping their state. Where the step runs on a device, `meanwhile` is called while it does.

        A step that fails, wherever and with whatever exception, has committed nothing: it is tried again, then halved
        until the bad row stands alone. Its error is a StepFailed.
        """
        try:
            return self._step(batch, dense)
        except Exception as error:
            logger.warning("a step of %d rows is tried again: %r", len(batch), error)
            self.counters.retries += 1
        try:
            return self._step(batch, None)
        except Exception as error:
            if len(batch) == 1:
                return [_step_failed(error)]
        half = len(batch) // 2
        return self.run(batch.part(0, half), None) + self.run(batch.part(half, len(batch)), None)

    def _step(self, batch: Batch, dense: int | None) -> list[Outcome]:
        """One try: it commits all of the step, or raises and has changed nothing."""
        rows = batch.rows
        mel = self._mel(batch)
        positions: Indices
        if dense is None:
            positions = np.arange(len(rows))
            encoded = self._encoder.step(rows, mel, self.lanes.prompt[rows])
        else:
            positions = rows
            mel = mel if len(rows) == dense else self._spread(mel, rows, dense)
            encoded = self._encoder.step(dense, mel, self.lanes.prompt[:dense])
        self.counters.steps += 1
        mine = self._by_decoder(rows)
        before = {name: self._decoders[name].save(rows[its]) for name, its in mine.items()}
        try:
            return self._keep(batch, positions, encoded, mine)
        except BaseException:
            for name, its in mine.items():
                self._decoders[name].restore(rows[its], before[name])
            raise

    def _keep(self, batch: Batch, positions: Indices, encoded: Floats, mine: dict[str, Indices]) -> list[Outcome]:
        """Decode (`mine`: which of the rows each decoder has), put back what is not to be kept, and commit.

        Decoders can be put back; the encoder's commit cannot, so it comes when nothing else can fail.
        """
        rows, saved = batch.rows, self._saved
        trials = [(int(rows[i]), i, work) for i, work in batch.work.items() if not work.committed]
        if trials:
            saved = dict(saved)
        for row, _, w in trials:
            if w.save:
                saved[self.rows.owner(row)] = self._encoder.save(row), self._decoder(row).save(row)
        found: list[Outcome] = [[]] * len(batch)
        for name, its in mine.items():
            tokens = self._decoders[name].step(rows[its], encoded[positions[its]], batch.frames[its])
            for i, said in zip(its.tolist(), tokens, strict=True):
                found[i] = said
        undo: list[tuple[int, Any]] = []
        keep = np.ones(len(batch), np.bool_)
        for row, i, w in trials:
            if w.restore:
                encoder_state, decoder_state = saved.pop(self.rows.owner(row))
                self._decoder(row).restore(row, decoder_state)
                undo.append((row, encoder_state))
                keep[i] = False
        self._encoder.commit(positions[keep], undo)
        self._saved = saved
        return found

    def _mel(self, batch: Batch) -> Floats:
        """(B, 8T, n_mels): what the encoder gets of the samples."""
        filters, span = self.model.mel, self.lanes.span
        if not batch.work:
            mel = filters.chunks(self.lanes.windows, batch.rows, span)
        else:
            mel = np.empty((len(batch), 8 * self.chunk_frames, filters.n_mels), np.float32)
            given = np.array(list(batch.work))
            mel[given] = filters.chunks(np.stack([w.samples for w in batch.work.values()]), np.arange(len(given)), span)
            others = np.delete(np.arange(len(batch)), given)
            if len(others):
                mel[others] = filters.chunks(self.lanes.windows, batch.rows[others], span)
        mel[batch.first, :FRONT_FRAMES] = 0.0
        return mel

    def _spread(self, mel: Floats, rows: Indices, total: int) -> Floats:
        """(total, 8T, n_mels): the rows at their places; between them whatever stood there, which nobody hears."""
        if len(self._riding) < total:
            self._riding = np.zeros((total, *mel.shape[1:]), np.float32)
        self._riding[rows] = mel
        return self._riding[:total]

    def _by_decoder(self, rows: Indices) -> dict[str, Indices]:
        """Which of `rows` each decoder has, as positions."""
        if len(self._decoders) == 1:
            return {name: np.arange(len(rows)) for name in self._decoders}
        names = np.array([self._decoder_of[row] for row in rows])
        return {name: np.flatnonzero(names == name) for name in self._decoders if name in names}

    def _decoder(self, row: int) -> Decoder:
        return self._decoders[self._decoder_of[row]]

    def _move(self, source: int, target: int) -> None:
        self._encoder.move(source, target)
        self._decoder(source).move(source, target)


def _step_failed(error: Exception) -> StepFailed:
    if isinstance(error, StepFailed):
        return error
    failed = StepFailed(f"the step failed with {error!r}; close the stream and open it again")
    failed.__cause__ = error
    return failed

"""A group whose rows live on the device: samples go in and tokens come out, and all between is one function there.

    group = DeviceGroup(key, model, chunk_frames=2, capacity=4096)      # memory for all rows, and every graph, now

What Group promises holds: uncommitted steps leave no trace, a row that fails changes nothing and no other notices. As
every row has a status of its own, no step is tried again.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nemostream.boosting import BoostingTree
from nemostream.device.decode import CtcTensors, RnntTensors
from nemostream.device.features import LogMel
from nemostream.device.fused import FINITE, OPEN, Fused
from nemostream.device.graphs import Graphs, aside
from nemostream.device.staging import Staging
from nemostream.device.terms import STATES, TermTables
from nemostream.encoders import Arrays, Indices, RowState, check_row
from nemostream.encoders.resident import ResidentBackend
from nemostream.encoders.tensors import enough_memory
from nemostream.errors import EngineFull, SnapshotError, StepFailed
from nemostream.greedy import Token
from nemostream.group import Group, Meanwhile, Outcome
from nemostream.lanes import Flags
from nemostream.work import Batch

logger = logging.getLogger("nemostream")


def buckets(capacity: int) -> list[int]:
    """Sizes of a batch, ascending: a captured step has one of these, and computes up to a third in vain."""
    sizes = {capacity}
    size = 1
    while size < capacity:
        sizes |= {size, min(capacity, size * 3 // 2)}
        size *= 2
    return sorted(sizes)


class DeviceGroup(Group):
    """Rows of the encoder and of each decoder in use, on the device of the model's backend."""

    def _make_room(self) -> bool:
        """Raises EngineFull if the device has no memory for the rows, or for the largest step over them."""
        backend = self.model.backend
        assert isinstance(backend, ResidentBackend)
        self._backend = backend
        with aside(backend.device):
            self._make_rows()
            self._make_steps()
        return True

    def _make_rows(self) -> None:
        device, capacity = self._backend.device, self.rows.capacity
        self._state = self._backend.state(self.chunk_frames, capacity, self.model.spare_frames(self.chunk_frames))
        self._trees: dict[int, BoostingTree] = {}
        self._trying: set[Hashable] = set()
        self._terms = TermTables(self._backend.info.vocab_size, STATES, device)
        bundle = self.model.bundle
        self._decoders_here: dict[str, RnntTensors | CtcTensors] = {}
        with enough_memory(f"the decoders of {capacity} rows"):
            for name in bundle.info.decoders:
                its = (bundle.weights, capacity + 1, self._terms, device)
                made = RnntTensors(*its, bundle.info.max_symbols) if name == "rnnt" else CtcTensors(*its)
                self._decoders_here[name] = made

    @torch.inference_mode()
    def _make_steps(self) -> None:
        """All that is to be captured, for every decoder: once streams run it would hold them up."""
        self._sizes = buckets(self.rows.capacity)
        device, largest = self._backend.device, self._sizes[-1]
        encode = self._backend.encoder(self._state, self._size(self._max_batch))
        with enough_memory(f"steps of {largest} rows"):
            mel = LogMel(self.model.mel).to(device)
            self._fused = Fused(encode, mel, self._state, self._decoders_here, largest)
            self._aside = [torch.zeros_like(tensor) for tensor in self._fused.small]
            self._staging = Staging(largest, self.lanes.span, self._fused.numbers, self._fused.results, device)
            self._graphs = Graphs(device)
            most = bisect_left(self._sizes, self._max_batch) + 1
            for size in reversed(self._sizes[:most]):  # the largest first: the others use its memory again
                self._prepare(size)

    def _prepare(self, size: int) -> None:
        """Capture the steps of that size, in which nobody does anything."""
        staging, fused = self._staging, self._fused
        for gathered in (False, True):
            numbers = staging.numbers(size)
            numbers[:] = 0
            numbers[0] = self._state.nobody if gathered else np.arange(size)
            staging.upload(size)
            self._graphs.prepare(("step", size, gathered), partial(fused.step, *staging.tensors(size), gathered))
        if fused.goes_on:
            self._graphs.prepare(("more", size), partial(fused.more, staging.tensors(size)[1]))

    def _admit(self, decoder: str) -> None:
        """All of the model's are here."""

    @torch.inference_mode()
    def _enter(self, row: int, decoder: str, state: RowState | None, boost: BoostingTree | None) -> None:
        base = self._terms.enter(boost)
        its, place = self._decoders_here[decoder], 0
        self._state.reset(row)
        its.reset(row)
        if state is not None:
            self._state.load(row, state.encoder_row)
            for name, tensor in zip(its.names, its.small, strict=True):
                tensor[row] = torch.from_numpy(np.array(state.decoder_row[name])).to(tensor)
            place = int(state.decoder_row["boost"])
        if boost is not None:
            self._trees[row] = boost
        # A tree that is gone on with is the one of the same terms, whose states have the same numbers.
        its.boost[row] = base + (place if boost is not None and place < boost.states else 0)

    @torch.inference_mode()
    def boost(self, owner: Hashable, tree: BoostingTree | None) -> None:
        """Favour other keyterms in the owner's row from now on, or none; where there is no room for them, none."""
        row = self.rows.row(owner)
        try:
            base = self._terms.enter(tree)
        except EngineFull as error:
            logger.warning("a stream goes on without keyterms: %s", error)
            base, tree = 0, None
        self._terms.leave(self._trees.pop(row, None))
        if tree is not None:
            self._trees[row] = tree
        self._decoder_here(row).boost[row] = base

    @torch.inference_mode()
    def export(self, owner: Hashable) -> RowState:
        """See Group.export."""
        assert owner not in self._trying, "a row in the middle of uncommitted steps cannot leave"
        row = self.rows.row(owner)
        its = self._decoder_here(row)
        found: Arrays = {name: t[row].cpu().numpy().copy() for name, t in zip(its.names, its.small, strict=True)}
        found["boost"] = np.array(found["boost"] - self._terms.root(self._trees.get(row)))
        return RowState(self._decoder_of[row], self.chunk_frames, self._state.export(row), found)

    def _check_rows(self, decoder: str, state: RowState) -> None:
        its = self._decoders_here[decoder]
        self._state.check(state.encoder_row)
        like = {name: t[:1].cpu().numpy() for name, t in zip(its.names, its.small, strict=True)}
        check_row(like, state.decoder_row)
        if state.decoder_row["boost"] < 0:
            raise SnapshotError("the saved state is damaged: boost is below zero; open the stream without it")

    def _forget(self, owner: Hashable, row: int) -> None:
        self._trying.discard(owner)
        self._terms.leave(self._trees.pop(row, None))

    @torch.inference_mode()
    def _move(self, source: int, target: int) -> None:
        self._state.move(source, target)
        for tensor in (*self._fused.small, *self._aside):
            tensor[target] = tensor[source]
        if source in self._trees:
            self._trees[target] = self._trees.pop(source)

    @torch.inference_mode()
    def run(self, batch: Batch, dense: int | None, meanwhile: Meanwhile = None) -> list[Outcome]:
        """Run one chunk for each row; see Group.run. A row whose result is not finite has a StepFailed of its own."""
        trials = [(i, work) for i, work in batch.work.items() if not work.committed]
        keep = np.ones(len(batch), np.bool_)
        keep[[i for i, work in trials if work.restore]] = False
        begin = [i for i, work in trials if work.save and not work.restore]
        end = [i for i, work in trials if work.restore and not work.save]
        try:
            self._copy(batch.rows[begin], self._fused.small, self._aside)
            at, size = self._fill(batch, keep, dense)
            found = self._replay(at, size, dense is None, meanwhile)
            self._copy(batch.rows[end], self._aside, self._fused.small)
        except RuntimeError as error:
            failed = StepFailed(f"the device failed ({_first_line(error)}); close the stream and open it again")
            failed.__cause__ = error
            return [failed] * len(batch)
        self._trying |= {self.rows.owner(int(batch.rows[i])) for i in begin}
        self._trying -= {self.rows.owner(int(batch.rows[i])) for i in end}
        return found

    def _fill(self, batch: Batch, keep: Flags, dense: int | None) -> tuple[Indices, int]:
        """Put what the rows are to do where the device fetches it; where each of them stands, and the batch's size."""
        count = dense or len(batch)
        size = self._size(count)
        numbers, samples = self._staging.numbers(size), self._staging.samples
        numbers[:] = 0
        # Fillers keep nothing: rows behind the batch, or the one that is nobody's.
        numbers[0] = np.arange(size) if dense else self._state.nobody
        at: Indices = batch.rows if dense else np.arange(count)
        numbers[0, at] = batch.rows
        numbers[1, at] = self.lanes.prompt[batch.rows]
        numbers[2, at] = batch.first
        numbers[3, at] = keep
        for i, name in enumerate(self._decoders_here):
            numbers[4 + i, at] = batch.frames
            if len(self._decoders_here) > 1:
                others = [j for j, row in enumerate(batch.rows.tolist()) if self._decoder_of[row] != name]
                numbers[4 + i, at[others]] = 0
        span = self.lanes.span
        if len(batch) == dense:
            samples[:dense] = self.lanes.windows[:dense, :span]
        else:
            samples[at] = self.lanes.windows[batch.rows, :span]
        for i, work in batch.work.items():
            samples[at[i]] = work.samples
        return at, size

    def _size(self, count: int) -> int:
        """Of a batch that `count` rows fit into."""
        return self._sizes[bisect_left(self._sizes, count)]

    def _replay(self, at: Indices, size: int, gathered: bool, meanwhile: Meanwhile) -> list[Outcome]:
        """What was filled in, for the rows that stand at `at`. The device is waited for once, unless a row says more
        than most do."""
        self.counters.steps += 1
        self._staging.upload(size)
        tensors, fused = self._staging.tensors(size), self._fused
        packed = self._graphs.run(("step", size, gathered), partial(fused.step, *tensors, gathered))
        results = self._staging.download(packed, meanwhile)
        failed = np.flatnonzero(results[-1, at] & FINITE == 0)
        out: list[Outcome] = [[] for _ in at]
        _collect(results[:, at], out)
        while (results[-1, at] & OPEN).any():
            packed = self._graphs.run(("more", size), partial(fused.more, tensors[1]))
            results = self._staging.download(packed)
            _collect(results[:, at], out)
        for i in failed.tolist():
            out[i] = StepFailed("the encoder's result is not finite; close the stream and open it again")
        return out

    def _copy(self, rows: Indices, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        if len(rows):
            index = torch.from_numpy(rows).to(self._backend.device)
            for source, target in zip(sources, targets, strict=True):
                target[index] = source[index]

    def _decoder_here(self, row: int) -> RnntTensors | CtcTensors:
        return self._decoders_here[self._decoder_of[row]]


def _collect(results: npt.NDArray[np.int32], out: list[Outcome]) -> None:
    """Add the tokens of a packed result (Fused.step) to those of each row."""
    tokens, frames, sure = np.split(results[:-1], 3)
    row, order = np.nonzero(tokens.T >= 0)
    columns = tokens[order, row], frames[order, row], sure.view(np.float32)[order, row]
    for i, token, frame, confidence in zip(row.tolist(), *(c.tolist() for c in columns), strict=True):
        its = out[i]
        assert isinstance(its, list)
        its.append(Token(token, frame, confidence))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

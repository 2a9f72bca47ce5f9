"""A row leaves as plain arrays and goes on elsewhere; what does not belong is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from nemostream.encoders import Arrays, RowState
from nemostream.errors import SnapshotError, StepFailed
from nemostream.feed import Feed
from nemostream.greedy import Token
from nemostream.group import Group
from nemostream.inbox import Options
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import NO_ENDPOINT, Samples
from nemostream.scheduler import Slot
from nemostream.work import Batch, Work
from tests.engine.conftest import utterance
from tests.engine.driver import load

CHUNKS_MS = [80, 160, 560, 1120]


def group_of(model: Model, chunk_ms: int, *owners: str, decoder: str = "rnnt", capacity: int = 4) -> Group:
    group = Group("key", model, model.chunk_frames(chunk_ms), capacity)
    for owner in owners:
        assert group.take(owner, decoder, Slot(live=True)) is not None
    return group


def windows_of(model: Model, chunk_ms: int, samples: Samples) -> list[Samples]:
    """Of every chunk that the samples complete."""
    feed = Feed(model.mel, model.chunk_frames(chunk_ms), Options(NO_ENDPOINT))
    feed.push(samples)
    windows = []
    while (window := feed.chunk()) is not None:
        windows.append(window.copy())
        feed.take_chunk()
    return windows


def run(group: Group, windows: dict[str, list[Samples]], chunks: Sequence[int]) -> dict[str, list[Token]]:
    """Run those chunks of every owner as one batch; the tokens, frames counted from the stream's start."""
    found: dict[str, list[Token]] = {owner: [] for owner in windows}
    frames = group.chunk_frames
    order = sorted(windows, key=group.rows.row)
    for k in chunks:
        work = [Work(windows[owner][k], frames, first=k == 0) for owner in order]
        batch = Batch.of([group.rows.row(owner) for owner in order], work)
        outcomes = group.run(batch, len(order))
        for owner, outcome in zip(order, outcomes, strict=True):
            assert not isinstance(outcome, StepFailed)
            found[owner] += [t._replace(frame=k * frames + t.frame) for t in outcome]
    return found


def same(left: RowState, right: RowState) -> bool:
    pairs = (left.encoder_row, right.encoder_row), (left.decoder_row, right.decoder_row)
    return all(a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a) for a, b in pairs)


def through_bytes(state: RowState) -> RowState:
    def copied(arrays: Arrays) -> Arrays:
        plain = {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}
        return {name: np.frombuffer(data, dtype).reshape(shape) for name, (dtype, shape, data) in plain.items()}

    return replace(state, encoder_row=copied(state.encoder_row), decoder_row=copied(state.decoder_row))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
@pytest.mark.parametrize("chunk_ms", CHUNKS_MS)
def test_a_row_goes_on_elsewhere_to_the_bit(
    toy: Model, toy_int8: Model, precision: str, decoder: str, chunk_ms: int
) -> None:
    """In another group and among other neighbours, before and after the rings are full: tokens and frames are those of
    the row that stayed. At the same place of the batch so are the exact probabilities, and the state at the end."""
    model = toy if precision == "fp32" else toy_int8
    said = {name: windows_of(model, chunk_ms, utterance(60 + i, 14)) for i, name in enumerate("abcde")}
    frames = model.chunk_frames(chunk_ms)
    last = min(map(len, said.values()))
    assert last * frames > 80
    early, late = last // 4, last - last // 4
    stays = group_of(model, chunk_ms, *"abc", decoder=decoder)
    states, expected = {}, []
    for first, end in ((0, early), (early, late), (late, last)):
        states[first] = through_bytes(stays.export("a"))
        expected += run(stays, {name: said[name] for name in "abc"}, range(first, end))["a"]
    for leaves, order in ((early, "dea"), (late, "ade")):
        other = group_of(model, chunk_ms, "before", decoder=decoder)
        run(other, {"before": said["b"]}, range(3))
        other.leave("before")
        for owner in order:
            assert other.take(owner, decoder, Slot(live=True), states[leaves] if owner == "a" else None) is not None
        found = run(other, {name: said[name] for name in order}, range(leaves, last))["a"]
        rest = [t for t in expected if t.frame >= leaves * frames]
        assert [(t.id, t.frame) for t in found] == [(t.id, t.frame) for t in rest] and len(rest) > 2
        if order == "ade":
            assert found == rest and same(other.export("a"), stays.export("a"))


def test_an_export_is_a_copy_and_holds_nothing_of_the_owner_before(toy: Model) -> None:
    first, second = (windows_of(toy, 160, utterance(seed, 14)) for seed in (70, 71))
    used, fresh = group_of(toy, 160, "before"), group_of(toy, 160, "now")
    run(used, {"before": first}, range(40))
    used.leave("before")
    used.take("now", "rnnt", Slot(live=True))
    for group in (used, fresh):
        run(group, {"now": second}, range(3))
    left, right = used.export("now"), fresh.export("now")
    run(used, {"now": second}, range(3, 9))
    assert same(left, right)


def test_a_row_in_the_middle_of_a_trial_does_not_leave(toy: Model) -> None:
    group = group_of(toy, 160, "a")
    window = np.zeros(toy.mel.span(16), np.float32)
    group.run(Batch.of([0], [Work(window, 2, committed=False, save=True)]), None)
    with pytest.raises(AssertionError, match="uncommitted"):
        group.export("a")
    group.run(Batch.of([0], [Work(window, 2, committed=False, restore=True)]), None)
    assert group.export("a").encoder_row["position"] == 0


def test_a_full_group_takes_no_state(toy: Model) -> None:
    group = group_of(toy, 160, "a", capacity=1)
    assert group.take("b", "rnnt", Slot(live=True), group.export("a")) is None


def _nan(array: np.ndarray, value: float = np.nan) -> np.ndarray:
    spoilt = array.copy()
    spoilt.flat[-1] = value
    return spoilt


def _encoder(**changed: Callable[[np.ndarray], np.ndarray]) -> Callable[[RowState], RowState]:
    def damage(state: RowState) -> RowState:
        row = dict(state.encoder_row)
        return replace(state, encoder_row=row | {name: change(row[name]) for name, change in changed.items()})

    return damage


DAMAGE: dict[str, Callable[[RowState], RowState]] = {
    "ring of another length": _encoder(k1=lambda a: a[:, 1:]),
    "tail with an axis more": _encoder(c0=lambda a: a[None]),
    "float64": _encoder(v0=lambda a: a.astype(np.float64)),
    "int32": _encoder(position=lambda a: a.astype(np.int32)),
    "other byte order": _encoder(s0=lambda a: a.astype(">f4")),
    "NaN in a ring": _encoder(k0=_nan),
    "infinite front end": _encoder(s1=lambda a: _nan(a, np.inf)),
    "before the stream": _encoder(position=lambda a: a - 6),
    "half a chunk": _encoder(position=lambda a: a + 1),
    "a layer is missing": lambda s: replace(s, encoder_row={n: a for n, a in s.encoder_row.items() if n != "c3"}),
    "a layer too many": lambda s: replace(s, encoder_row=s.encoder_row | {"c4": s.encoder_row["c3"]}),
    "NaN in the predictor": lambda s: replace(s, decoder_row=s.decoder_row | {"h": _nan(s.decoder_row["h"])}),
    "predictor of another size": lambda s: replace(s, decoder_row=s.decoder_row | {"c": s.decoder_row["c"][:, 1:]}),
    "CTC's row under RNN-T's name": lambda s: replace(s, decoder_row={"previous": np.array(0)}),
    "no predictor": lambda s: replace(s, decoder_row={}),
    "other decoder, same row": lambda s: replace(s, decoder="ctc"),
    "other chunk size, same shapes": lambda s: replace(s, chunk_frames=1),
}


def refuse(group: Group, state: RowState) -> None:
    with pytest.raises(SnapshotError) as caught:
        group.take("b", "rnnt", Slot(live=True), state)
    assert str(caught.value).endswith("open the stream without it") and "\n" not in str(caught.value)
    assert group.rows.owners() == ["a"] and len(group.load.slots) == 1


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_refused_and_takes_no_row(toy: Model, damage: str) -> None:
    group = group_of(toy, 160, "a", capacity=2)
    run(group, {"a": windows_of(toy, 160, utterance(60))}, range(2))
    state = group.export("a")
    refuse(group, DAMAGE[damage](state))
    assert group.take("b", "rnnt", Slot(live=True), state) is not None


@pytest.mark.parametrize("chunk_ms", [80, 560])
def test_a_state_of_another_chunk_size_is_refused(toy: Model, chunk_ms: int) -> None:
    refuse(group_of(toy, 160, "a"), group_of(toy, chunk_ms, "x").export("x"))


def test_a_state_of_another_model_is_refused(toy: Model, random_bundle: Bundle) -> None:
    other = group_of(load(random_bundle.path), 160, "x")
    refuse(group_of(toy, 160, "a"), other.export("x"))

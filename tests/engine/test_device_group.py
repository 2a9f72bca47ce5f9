"""The engine on a device, run on the CPU: what it says is what the host's engine says, and no row disturbs another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from nemostream.device.fused import MORE
from nemostream.device.graphs import WARM_UPS, Graphs
from nemostream.device.group import DeviceGroup, buckets
from nemostream.encoders.tensors import RowTensors
from nemostream.errors import SnapshotError, StepFailed
from nemostream.group import Group
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Endpointing, Final, Refused
from nemostream.scheduler import Slot
from nemostream.work import Batch, Work
from tests.engine.conftest import utterance
from tests.engine.driver import Driver
from tests.engine.test_row_state import DAMAGE, run, same, windows_of

Events = list[tuple[str, str, int]]


def talk(model: Model, chunk_ms: int, decoder: str, **opened: Any) -> tuple[list[Events], list[list[tuple[int, int]]]]:
    """Four streams that flush, pause, leave and come; with peeks where chunks are long."""
    d = Driver(model, chunk_ms=chunk_ms, decoder=decoder, peek=True, max_streams=4, **opened)
    said = [utterance(80 + i, 8) for i in range(5)]
    rng = np.random.RandomState(chunk_ms)
    at = dict.fromkeys(range(5), 0)
    for stream in range(4):
        d.open(stream)
    for tick in range(60):
        if tick == 25:
            d.close(1)
            d.open(4)
        for stream, samples in enumerate(said):
            if stream in d.events and stream != (1 if tick >= 25 else 4):
                length = int(rng.randint(0, 3)) * 800
                d.push(stream, samples[at[stream] : at[stream] + length], run=False)
                at[stream] += length
        if tick % 12 == 7:
            d.flush(tick // 12 % 4 if tick < 25 else 4, tick, run=False)
        d.run()
        d.now += 0.05
    for stream in (0, 2, 3, 4):
        d.close(stream)
    finals = [[(f.text, f.reason, f.flush_id or 0) for f in d.of(s, Final)] for s in range(5)]
    return finals, [[(t.id, t.frame) for t in d.tokens[s]] for s in range(5)]


@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
@pytest.mark.parametrize("chunk_ms", [80, 160, 560, 1120])
def test_streams_say_what_they_say_on_the_host(toy: Model, device: Model, chunk_ms: int, decoder: str) -> None:
    """Flushes, endpoints, peeks, streams that leave and come: finals, tokens and frames are the same."""
    opened = {"endpointing": Endpointing(blank_ms=400)}
    expected, found = (talk(model, chunk_ms, decoder, **opened) for model in (toy, device))
    assert found == expected
    assert sum(map(len, found[1])) > 25 and any(f[1] == "flush" for finals in found[0] for f in finals)


def test_keyterms_favour_what_they_favour_on_the_host(
    toy: Model, device: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemostream.boosting.ALPHA", 1.0)
    plain = talk(toy, 160, "rnnt")
    for decoder in ("rnnt", "ctc"):
        expected, found = (talk(m, 160, decoder, keyterms=["hello now", "is call"]) for m in (toy, device))
        assert found == expected
    assert expected != plain


def test_two_decoders_share_a_group(toy: Model, device: Model) -> None:
    """The second comes while the first one's stream is in the middle of a word."""
    found = []
    for model in (toy, device):
        d = Driver(model, chunk_ms=160)
        for stream, decoder in enumerate(("rnnt", "ctc", "rnnt")):
            d.open(stream, decoder=decoder)
            for other in range(stream + 1):
                d.push(other, utterance(90 + other, 8)[stream * 16000 : (stream + 1) * 16000])
        for stream in range(3):
            d.flush(stream, 1)
        found.append([d.text(stream) for stream in range(3)])
    assert found[0] == found[1] and all(found[0])


def group_of(model: Model, *owners: str, decoder: str = "rnnt", capacity: int = 4) -> Group:
    group = model.group("key", model, 2, capacity)
    for owner in owners:
        assert group.take(owner, decoder, Slot(live=True)) is not None
    return group


@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
def test_a_row_goes_from_the_host_to_the_device_and_back(toy: Model, device: Model, decoder: str) -> None:
    said = {name: windows_of(toy, 160, utterance(60 + i, 14)) for i, name in enumerate("ab")}
    third = min(map(len, said.values())) // 3
    stays = group_of(toy, "a", decoder=decoder)
    first, there, back = (group_of(m, decoder=decoder) for m in (toy, device, toy))
    expected = run(stays, {"a": said["a"]}, range(3 * third))["a"]
    first.take("a", decoder, Slot(live=True))
    found = run(first, {"a": said["a"]}, range(third))["a"]
    there.take("b", decoder, Slot(live=True))
    there.take("a", decoder, Slot(live=True), first.export("a"))
    found += run(there, said, range(third, 2 * third))["a"]
    back.take("a", decoder, Slot(live=True), there.export("a"))
    found += run(back, {"a": said["a"]}, range(2 * third, 3 * third))["a"]
    assert [(t.id, t.frame) for t in found] == [(t.id, t.frame) for t in expected] and len(found) > 8


def test_a_place_in_the_terms_crosses_over(toy: Model, device: Model) -> None:
    tree = toy.keyterms.tree(["hello now", "is call"])
    assert tree is not None
    group = group_of(device, "x")
    assert isinstance(group, DeviceGroup)
    state = group_of(toy, "a").export("a")
    state.decoder_row["boost"] = np.array(tree.states - 1)
    group.take("a", "rnnt", Slot(live=True), state, boost=tree)
    group.take("b", "rnnt", Slot(live=True), state)
    assert group.export("a").decoder_row["boost"] == tree.states - 1
    assert group.export("b").decoder_row["boost"] == 0
    group.leave("x")
    assert group.export("a").decoder_row["boost"] == tree.states - 1
    group.boost("a", None)
    assert group.export("a").decoder_row["boost"] == 0 and not group._terms._held


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_refused_and_takes_no_row(device: Model, damage: str) -> None:
    group = group_of(device, "a", capacity=2)
    state = group.export("a")
    with pytest.raises(SnapshotError):
        group.take("b", "rnnt", Slot(live=True), DAMAGE[damage](state))
    assert group.rows.owners() == ["a"] and len(group.load.slots) == 1
    assert group.take("b", "rnnt", Slot(live=True), state) is not None


def test_uncommitted_steps_leave_no_trace(device: Model) -> None:
    """A request of several steps, and a look into a chunk: to the bit, while another row goes on, and moves."""
    windows = [windows_of(device, 160, utterance(60 + i, 14)) for i in range(3)]
    group = group_of(device, "x", "b", "a")
    run(group, {owner: windows[i] for i, owner in enumerate("xba")}, range(20))
    before = group.export("a")
    for step in range(3):
        rows = [group.rows.row(owner) for owner in "ab"]
        work = [
            Work(windows[2][20 + step], 2, committed=False, save=step == 0, restore=step == 2),
            Work(windows[1][20 + step], 2),
        ]
        order = np.argsort(rows)
        found = group.run(Batch.of(sorted(rows), [work[i] for i in order]), None)
        assert not any(isinstance(outcome, StepFailed) for outcome in found)
        if step == 0:
            assert not same(group.export("b"), before)
            with pytest.raises(AssertionError, match="uncommitted"):
                group.export("a")
            group.leave("x")  # "a" moves into its row, with what was put aside
            assert group.rows.row("a") == 0
    assert same(group.export("a"), before)
    look = Work(windows[2][24], 2, committed=False, save=True, restore=True, peek=True)
    group.run(Batch.of([0], [look]), 2)
    assert same(group.export("a"), before)


def test_a_row_that_fails_changes_nothing_and_no_other_notices(device: Model) -> None:
    windows = [windows_of(device, 160, utterance(60 + i, 9)) for i in range(3)]
    both, alone = group_of(device, *"abc"), group_of(device, *"abc")
    for group in (both, alone):
        run(group, {owner: windows[i] for i, owner in enumerate("abc")}, range(20))
    before = both.export("b")
    broken = np.full_like(windows[1][20], np.nan)
    work = [Work(windows[0][20], 2), Work(broken, 2), Work(windows[2][20], 2)]
    outcomes = both.run(Batch.of(range(3), work), 3)
    assert isinstance(outcomes[1], StepFailed) and "not finite" in str(outcomes[1])
    assert same(both.export("b"), before)
    assert outcomes[::2] == alone.run(Batch.of(range(3), [Work(w[20], 2) for w in windows]), 3)[::2]
    assert all(same(both.export(owner), alone.export(owner)) for owner in "ac")


def test_a_device_that_fails_is_told_to_every_row(device: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of(device, "a", "b")
    assert isinstance(group, DeviceGroup)

    def lost(result: torch.Tensor, meanwhile: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")

    monkeypatch.setattr(group._staging, "download", lost)
    window = np.zeros(device.mel.span(16), np.float32)
    outcomes = group.run(Batch.of([0, 1], [Work(window, 2), Work(window, 2)]), 2)
    assert [type(outcome) for outcome in outcomes] == [StepFailed, StepFailed]
    assert "the device failed (CUDA error: an illegal memory access was encountered); close" in str(outcomes[0])


def test_a_batch_may_be_any_rows_and_any_size(device: Model) -> None:
    """Views and gathered batches of every size give what a row gives alone."""
    windows = [windows_of(device, 160, utterance(60 + i, 9)) for i in range(6)]
    names = "abcdef"
    expected = [run(group_of(device, name), {name: windows[i]}, range(24))[name] for i, name in enumerate(names)]
    group = group_of(device, *names, capacity=7)
    found: list[list[tuple[int, int]]] = [[] for _ in names]
    at = [0] * 6
    rng = np.random.RandomState(2)
    while min(at) < 24:
        ready = [i for i in range(6) if at[i] < 24 and rng.rand() < 0.6]
        if not ready:
            continue
        dense = 6 if rng.rand() < 0.5 else None
        batch = Batch.of(ready, [Work(windows[i][at[i]], 2, first=at[i] == 0) for i in ready])
        for i, outcome in zip(ready, group.run(batch, dense), strict=True):
            assert not isinstance(outcome, StepFailed)
            found[i] += [(t.id, 2 * at[i] + t.frame) for t in outcome]
            at[i] += 1
    assert found == [[(t.id, t.frame) for t in said] for said in expected]


def test_no_more_memory_is_a_refusal_at_open(device: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and steps are had when a chunk size is first asked for; streams that are open go on."""
    d = Driver(device, chunk_ms=160)
    d.open(0)

    def full(*given: Any, **named: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 31.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr("nemostream.encoders.tensors.torch.zeros", full)
        d.open(1, chunk_ms=560)
    refused: Refused = d.refused(1)
    assert refused.code == "EngineFull" and refused.retry_after
    assert "the device has no memory for 8 rows (CUDA out of memory. Tried to allocate 31.00 GiB)" in refused.message
    d.push(0, utterance(3))
    d.flush(0, 1)
    assert d.text(0)
    d.open(2, chunk_ms=560)
    assert d.of(2, Refused) == []


def test_terms_for_which_there_is_no_room(device: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """At open they are refused, with the row; later the stream goes on without them."""
    monkeypatch.setattr("nemostream.device.group.STATES", 4)
    d = Driver(device, chunk_ms=160)
    d.open(0, keyterms=["hello now"])
    assert "the keyterms of other streams leave no room" in d.events[0][-1].message  # type: ignore[attr-defined]
    assert len(d.core) == 0
    d.open(1)
    (group,) = d.core.groups.values()
    group.boost(group.rows.owner(0), device.keyterms.tree(["hello now"]))
    d.push(1, utterance(3))
    d.flush(1, 1)
    assert d.text(1)


def test_a_step_can_be_captured(device: Model) -> None:
    """Nothing in it waits for a value or has a shape that depends on one: torch's tensors without values run it."""
    group = group_of(device, "a", decoder="ctc")
    assert isinstance(group, DeviceGroup) and list(group._decoders_here) == ["rnnt", "ctc"]
    tensors = group._staging.tensors(4)
    position = group._state.position.clone()

    def traced(function: Callable[[], torch.Tensor]) -> torch.Size:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
            return function().shape

    fused = group._fused
    assert traced(lambda: fused.step(*tensors, gathered=True)) == (3 * (4 + 2) + 1, 4)
    assert traced(lambda: fused.step(*tensors, gathered=False)) == (3 * (4 + 2) + 1, 4)
    assert traced(lambda: fused.more(tensors[1])) == (3 * MORE + 1, 4)
    assert torch.equal(group._state.position, position)
    with pytest.raises(DataDependentOutputException):
        traced(lambda: tensors[0] if bool(tensors[1].any()) else tensors[1])
    with pytest.raises(DynamicOutputShapeException):
        traced(lambda: tensors[0][tensors[1][0] > 0])


def test_sizes_of_a_batch_waste_a_third_at_most() -> None:
    assert buckets(1) == [1] and buckets(7) == [1, 2, 3, 4, 6, 7]
    for capacity in (100, 256, 4000):
        sizes = buckets(capacity)
        assert sizes[0] == 1 and sizes[-1] == capacity
        assert all(b <= 1.5 * a + 0.5 or b == 2 for a, b in zip(sizes, sizes[1:], strict=False))


@pytest.mark.parametrize("kind", ["toy", "ctc", "eou", "prompt"])
def test_what_is_run_before_a_capture_changes_nothing(
    toy_bundle: Bundle, kind_bundle: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """On a GPU every step runs a few times on rows that are nobody's yet. Here too, for once; all kinds of models."""
    prepared: list[Any] = []

    def prepare(graphs: Graphs, key: Any, function: Callable[[], torch.Tensor]) -> None:
        prepared.append(key)
        for _ in range(WARM_UPS + 1):
            function()

    bundle = toy_bundle if kind == "toy" else kind_bundle(kind)
    model = Model.load(bundle.path, "fp32", 1, "torch")
    untouched = model.group("key", model, bundle.info.chunk_frames[0], 4)
    monkeypatch.setattr(Graphs, "prepare", prepare)
    group = model.group("key", model, bundle.info.chunk_frames[0], 4)
    assert isinstance(group, DeviceGroup) and isinstance(untouched, DeviceGroup)
    sizes = buckets(4)
    more = [("more", n) for n in sizes] if "rnnt" in bundle.info.decoders else []
    assert sorted(prepared, key=str) == sorted([("step", n, g) for n in sizes for g in (False, True)] + more, key=str)
    for ours, theirs in zip(group._fused.small, untouched._fused.small, strict=True):
        assert torch.equal(ours, theirs)
    assert not group._state.rings.any() and not group._state.position.any()


def test_what_was_not_prepared_runs_as_it_is() -> None:
    graphs = Graphs(torch.device("cpu"))
    graphs.prepare("one", lambda: torch.ones(1))
    assert len(graphs) == 0 and graphs.run("one", lambda: torch.full((1,), 2.0)).item() == 2


def test_memory_of_a_row_is_known(device: Model) -> None:
    group = group_of(device, "a")
    assert isinstance(group, DeviceGroup)
    state: RowTensors = group._state
    info = device.bundle.info.encoder
    rings = 2 * info.n_layers * info.d_model * state.columns * 4
    assert rings < state.row_bytes < 2 * rings


def test_a_full_house_takes_no_state(device: Model) -> None:
    group = group_of(device, "a", capacity=1)
    assert group.take("b", "rnnt", Slot(live=True), group.export("a")) is None

"""Rows that a TensorRT engine encodes, with onnxruntime in the place of NVIDIA's engine (tests/models/onnx_engine.py):
the plan's graph, the addresses, the batches in parts and the contexts are those of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from torch import Tensor

from nemostream.device.group import DeviceGroup
from nemostream.encoders import tensorrt, trt
from nemostream.encoders.resident import DTYPES, ResidentRows
from nemostream.encoders.tensorrt import TensorRtBackend, want
from nemostream.encoders.torch import TorchBackend
from nemostream.encoders.trt import Context, Engine, Range, at_once, ranges
from nemostream.errors import DeviceError, StepFailed
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.models.export import Sizes, export_step
from nemostream.models.initializers import encoder_weights
from nemostream.models.restore import make_step
from nemostream.scheduler import Slot
from nemostream.work import Batch, Work
from tests.engine.conftest import utterance
from tests.engine.test_device_group import talk
from tests.engine.test_row_state import run, windows_of
from tests.models.onnx_engine import OnnxEngine


@dataclass
class OnnxApi:
    """Stands where trt.Api does: a plan is the path of a graph."""

    name: str = "onnxruntime for TensorRT"
    engines: list[OnnxEngine] = field(default_factory=list)

    def load(self, plan: bytes) -> Engine:
        engine = OnnxEngine(Path(plan.decode()), ranges(256))
        self.engines.append(engine)
        return Engine(engine, engine.context)


@dataclass
class OnnxBuilder(OnnxApi):
    """One that builds, too: a plan is the graph itself. The first `refused` plans do not load."""

    folder: Path = Path()
    refused: int = 0
    built: int = 0
    loads: int = 0
    identity: str = "onnxruntime in the place of a GPU"

    def build(self, graph: Path, sizes: list[Range], timing: bytes, say: Callable[[str], None]) -> tuple[bytes, bytes]:
        self.built += 1
        return graph.read_bytes(), b""

    def load(self, plan: bytes) -> Engine:
        self.loads += 1
        if self.loads <= self.refused:
            raise DeviceError("the plan is one of another installation")
        path = self.folder / f"{self.loads}.onnx"
        path.write_bytes(plan)
        return super().load(str(path).encode())


Make = Callable[..., tuple[TensorRtBackend, OnnxApi]]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Backends on graphs that are exported when a chunk size is first asked for."""
    folder = tmp_path_factory.mktemp("plans")

    def plan(bundle: Bundle, precision: str, frames: int) -> bytes:
        path = folder / f"{bundle.hash}-{precision}-{frames}.onnx"
        if not path.exists():
            info, its = bundle.info, want(bundle.info, frames, precision, 256)
            step = make_step(info, encoder_weights(bundle), "here").reduce(DTYPES[precision])
            export_step(step, info.encoder, info.mel, path, Sizes(its.frames, its.columns))
        return str(path).encode()

    def backend(bundle: Bundle, precision: str = "fp32") -> tuple[TensorRtBackend, OnnxApi]:
        api = OnnxApi()
        plans = {frames: partial(plan, bundle, precision, frames) for frames in bundle.info.chunk_frames}
        return TensorRtBackend(bundle.info, precision, "cpu", cast(Any, api), plans), api

    return backend


@pytest.fixture(scope="module")
def device(toy_bundle: Bundle, make: Make) -> Model:
    return Model(toy_bundle, make(toy_bundle)[0], "fp32", group=DeviceGroup)


@pytest.mark.parametrize("chunk_ms, decoder", [(80, "rnnt"), (160, "ctc"), (1120, "rnnt")])
def test_streams_say_what_they_say_on_the_host(toy: Model, device: Model, chunk_ms: int, decoder: str) -> None:
    expected, found = (talk(model, chunk_ms, decoder) for model in (toy, device))
    assert found == expected and sum(map(len, found[1])) > 25


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt, "PART_ROWS", 2)
    monkeypatch.setattr(trt, "MEL_FRAMES", 1)


def test_a_batch_in_parts_is_the_same(toy_bundle: Bundle, make: Make, small_parts: None) -> None:
    """Five rows through an engine that takes two, dense and gathered, as the torch module has them."""
    backend, api = make(toy_bundle)
    parts, whole = backend.rows(2, 5, 4), TorchBackend.load(toy_bundle, "fp32", "cpu").rows(2, 5, 4)
    rng = np.random.default_rng(1)
    for k, rows in enumerate([5, 5, np.array([4, 0, 3]), 5, np.array([2])]):
        count = rows if isinstance(rows, int) else len(rows)
        mel = rng.standard_normal((count, 16, toy_bundle.info.mel.n_mels)).astype(np.float32) - 5
        expected, found = (r.step(rows, mel).copy() for r in (whole, parts))
        assert np.abs(found - expected).max() < 2e-5, k
        for r in (whole, parts):
            r.commit(np.arange(count - 1) if k == 1 else np.arange(count))
    assert api.engines[0].runs == 3 + 3 + 2 + 3 + 1
    for row in range(5):
        before, after = (r.export(row) for r in (whole, parts))
        assert all(np.abs(before[name] - after[name]).max() < 2e-5 for name in before)


@pytest.mark.parametrize("precision, least", [("fp32", 2e-5), ("fp16", 2e-3)])
def test_rows_are_those_of_torch_in_each_precision(
    kind_bundle: Callable[[str], Bundle], make: Make, precision: str, least: float
) -> None:
    """Of a model that takes a prompt, too: what torch says in fp32 is what the graph says in `precision`."""
    bundle = kind_bundle("prompt")
    backend = make(bundle, precision)[0]
    spare = bundle.info.spare_frames(1)
    rows: list[ResidentRows] = [b.rows(1, 3, spare) for b in (backend, TorchBackend.load(bundle, "fp32", "cpu"))]
    rng = np.random.default_rng(2)
    for _ in range(4):
        mel = rng.standard_normal((3, 8, bundle.info.mel.n_mels)).astype(np.float32) - 5
        found, expected = (r.step(3, mel, np.array([0, 1, 1])).copy() for r in rows)
        assert np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) < least
        for r in rows:
            r.commit(np.arange(3))


def test_addresses_are_multiples_of_256_and_tensors_whole(
    toy_bundle: Bundle, make: Make, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TensorRT wants them: of each tensor its place in the memory that torch gave, which on a GPU begins at one."""
    seen: list[Tensor] = []
    plain = Context.run

    def watched(context: Context, tensors: dict[str, Tensor], stream: int) -> None:
        seen.extend(tensors.values())
        plain(context, tensors, stream)

    monkeypatch.setattr(Context, "run", watched)
    monkeypatch.setattr(trt, "PART_ROWS", 64)
    backend = make(toy_bundle)[0]
    for capacity in (70, 129):
        rows = backend.rows(2, capacity, 4)
        mel = np.zeros((capacity, 16, toy_bundle.info.mel.n_mels), np.float32)
        rows.step(capacity, mel)
        rows.step(np.arange(capacity)[::-1].copy(), mel)
    assert len(seen) > 100
    for tensor in seen:
        assert tensor.is_contiguous() and tensor.storage_offset() * tensor.itemsize % 256 == 0


def test_a_context_serves_one_size_of_a_batch(toy_bundle: Bundle, make: Make) -> None:
    """A captured graph keeps what its context was: another size must have another one."""
    backend, api = make(toy_bundle)
    rows = backend.rows(2, 12, 4)
    for rows_now in (3, 12, 3, np.array([1, 0, 2]), 12):
        count = rows_now if isinstance(rows_now, int) else len(rows_now)
        rows.step(rows_now, np.zeros((count, 16, toy_bundle.info.mel.n_mels), np.float32))
    contexts = api.engines[0].contexts
    assert [(c.runs, c.profile) for c in contexts] == [(2, ranges(256)[0]), (2, ranges(256)[1]), (1, ranges(256)[0])]


def test_what_the_engine_refuses_fails_its_streams_alone(
    toy: Model, device: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told, typed, and the next step goes on from what was there before."""
    windows = windows_of(toy, 160, utterance(71, 6))
    groups = [model.group("key", model, 2, 4) for model in (toy, device)]
    for group in groups:
        group.take("a", "rnnt", Slot(live=True))
    expected = run(groups[0], {"a": windows}, range(len(windows)))["a"]
    half = len(windows) // 2
    found = run(groups[1], {"a": windows}, range(half))["a"]
    with monkeypatch.context() as patch:
        patch.setattr("tests.models.onnx_engine.OnnxContext.execute_async_v3", lambda context, stream: False)
        work = Work(windows[half], 2, first=False)
        (outcome,) = groups[1].run(Batch.of([groups[1].rows.row("a")], [work]), 1)
    assert isinstance(outcome, StepFailed) and "TensorRT did not run the step" in str(outcome)
    found += run(groups[1], {"a": windows}, range(half, len(windows)))["a"]
    assert [(t.id, t.frame) for t in found] == [(t.id, t.frame) for t in expected] and len(found) > 5


def load(bundle: Bundle, builder: OnnxBuilder, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> TensorRtBackend:
    monkeypatch.setattr(tensorrt, "find", lambda: builder)
    return TensorRtBackend.load(bundle, "fp32", "cpu", 8, builder.folder / "plans", said.append)


def test_a_model_is_seen_to_run_before_it_is_used(
    toy_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every chunk size once; and what was built is not built again."""
    builder, sizes = OnnxBuilder(folder=tmp_path), len(toy_bundle.info.chunk_frames)
    load(toy_bundle, builder, monkeypatch, [])
    assert [engine.runs for engine in builder.engines] == [1] * sizes and builder.built == sizes
    backend = load(toy_bundle, builder, monkeypatch, [])
    assert builder.built == sizes
    rows, mel = backend.rows(2, 3, 4), np.full((3, 16, toy_bundle.info.mel.n_mels), -5.0, np.float32)
    assert (
        np.abs(rows.step(3, mel) - TorchBackend.load(toy_bundle, "fp32", "cpu").rows(2, 3, 4).step(3, mel)).max() < 2e-5
    )


def test_a_plan_that_does_not_load_is_built_once_more(
    toy_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder, said = OnnxBuilder(folder=tmp_path, refused=1), list[str]()
    load(toy_bundle, builder, monkeypatch, said)
    assert builder.built == len(toy_bundle.info.chunk_frames) + 1
    assert sum("is built anew: a step does not run (the plan is one of another installation)" in s for s in said) == 1


def test_what_does_not_run_leaves_it_to_torch(
    toy_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tensorrt_if_here` makes a warning of it."""
    builder = OnnxBuilder(folder=tmp_path)
    monkeypatch.setattr("tests.models.onnx_engine.OnnxContext.execute_async_v3", lambda context, stream: False)
    with pytest.raises(DeviceError, match=r"a step does not run \(TensorRT did not run the step\)"):
        load(toy_bundle, builder, monkeypatch, [])
    assert builder.built == 2  # the first chunk size, twice


def test_batches_that_an_engine_takes() -> None:
    assert [at_once(t, 100_000) for t in (1, 2, 7, 14)] == [4096, 2048, 576, 256]
    assert at_once(2, 300) == 300
    assert [(r.least, r.most) for r in ranges(1024)] == [(1, 8), (9, 64), (65, 512), (513, 1024)]
    assert [(r.least, r.most) for r in ranges(8)] == [(1, 8)] and [(r.least, r.most) for r in ranges(1)] == [(1, 1)]
    for size in range(1, 700):
        offered = ranges(1 << (size - 1).bit_length())
        assert offered == ranges(4096)[: len(offered) - 1] + [offered[-1]] and offered[-1].most >= size

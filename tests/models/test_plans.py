"""Plans: TensorRT for RTX, which needs no GPU to build, makes them of our graphs; each is built once, and torch stays
where TensorRT cannot be had."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from nemostream.encoders import plans as plans_module
from nemostream.encoders import trt
from nemostream.encoders.plans import Plans, Wanted
from nemostream.encoders.tensorrt import tensorrt_if_here, want
from nemostream.encoders.trt import Range, find, ranges
from nemostream.encoders.trt_report import Phases
from nemostream.errors import DeviceError
from nemostream.model import Model
from nemostream.models import catalog
from nemostream.models.bundle import Bundle, load_bundle
from tests.models import shapes

TWO = Wanted(frames=2, columns=74, precision="bf16", most=16)


def test_the_embedded_model_builds(tmp_path: Path) -> None:
    bundle, said = load_bundle(catalog.resolve(None)), list[str]()
    plans = Plans(tmp_path, find("sm89"))
    assert len(plans.get(bundle, want(bundle.info, 2, "bf16", 8), said.append)) > 4e6
    assert said[0] == "en-starter, 160 ms: exporting" and said[-1].startswith("en-starter, 160 ms: building, ")


def test_the_114m_shape_builds() -> None:
    assert shapes.build("fastconformer-114m", "bf16", 2, 8)["plan_mb"] > 200


@pytest.mark.parametrize("kind, precision", [("prompt", "fp16"), ("eou", "fp32")])
def test_other_kinds_build(kind_bundle: Callable[[str], Bundle], kind: str, precision: str, tmp_path: Path) -> None:
    bundle = kind_bundle(kind)
    assert Plans(tmp_path, find("sm89")).get(bundle, want(bundle.info, 1, precision, 4), quiet)


def test_a_graph_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "step.onnx").write_bytes(b"no graph")
    with pytest.raises(DeviceError, match=r"TensorRT for RTX \S+ does not read the graph \(.+\)"):
        find("sm89").build(tmp_path / "step.onnx", ranges(4), b"", quiet)


def test_an_interrupt_ends_a_build(toy_bundle: Bundle, tmp_path: Path) -> None:
    """Wherever it falls: TensorRT is in the middle of what it calls, and goes on by itself."""

    def interrupted(far: str) -> None:
        if "building" in far:
            signal.raise_signal(signal.SIGINT)

    plans = Plans(tmp_path, find("sm89"))
    with pytest.raises(KeyboardInterrupt):
        plans.get(toy_bundle, TWO, interrupted)
    assert not list(tmp_path.iterdir())
    assert plans.get(toy_bundle, TWO, quiet)


class Builder:
    """Stands where trt.Api does and only counts: what it builds and learns."""

    identity = "a builder on a GPU"

    def __init__(self) -> None:
        self.built: list[tuple[bytes, Sequence[Range]]] = []

    def build(
        self, graph: Path, sizes: Sequence[Range], timing: bytes, say: Callable[[str], None]
    ) -> tuple[bytes, bytes]:
        assert graph.stat().st_size > 10_000
        self.built.append((timing, sizes))
        return b"plan %d" % len(self.built), b"learnt %d" % len(self.built)


def quiet(far: str) -> None: ...


def test_a_plan_is_built_once(toy_bundle: Bundle, tmp_path: Path) -> None:
    builder = Builder()
    first = Plans(tmp_path, cast(Any, builder)).get(toy_bundle, TWO, quiet)
    again = Plans(tmp_path, cast(Any, builder)).get(toy_bundle, TWO, quiet)
    assert first == again == b"plan 1" and builder.built == [(b"", ranges(16))]


def test_a_build_begins_with_what_earlier_ones_learnt(toy_bundle: Bundle, tmp_path: Path) -> None:
    builder = Builder()
    plans = Plans(tmp_path, cast(Any, builder))
    for frames in (1, 2, 7):
        plans.get(toy_bundle, Wanted(frames, 74, "fp32", 4), quiet)
    assert [timing for timing, _ in builder.built] == [b"", b"learnt 1", b"learnt 2"]


@pytest.mark.parametrize("change", ["frames", "columns", "precision", "most", "gpu", "code", "weights"])
def test_a_stale_plan_is_built_again(
    toy_bundle: Bundle,
    kind_bundle: Callable[[str], Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    builder = Builder()
    plans = Plans(tmp_path, cast(Any, builder))
    plans.get(toy_bundle, TWO, quiet)
    changed = {"frames": 1, "columns": 76, "precision": "fp16", "most": 32}
    wanted = (
        Wanted(**{**{name: getattr(TWO, name) for name in changed}, change: changed[change]})
        if change in changed
        else TWO
    )
    bundle = kind_bundle("eou") if change == "weights" else toy_bundle
    if change == "gpu":
        builder.identity = "the next version on another GPU"
    if change == "code":
        monkeypatch.setattr(plans_module, "_code", lambda: "other code")
    assert plans.get(bundle, wanted, quiet) == b"plan 2"


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: b"", lambda c: c[:40] + b"x" + c[41:]])
def test_a_damaged_plan_is_built_again(toy_bundle: Bundle, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    builder = Builder()
    plans = Plans(tmp_path, cast(Any, builder))
    plans.get(toy_bundle, TWO, quiet)
    path = plans.path(toy_bundle, TWO)
    path.write_bytes(damage(path.read_bytes()))
    assert plans.get(toy_bundle, TWO, quiet) == b"plan 2"
    assert plans.get(toy_bundle, TWO, quiet) == b"plan 2"


def test_a_folder_that_cannot_be_written_is_said(toy_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file")
    with pytest.raises(DeviceError, match="the plan cannot be kept"):
        Plans(tmp_path / "plans" / "here", cast(Any, Builder())).get(toy_bundle, TWO, quiet)


def test_without_a_gpu_torch_computes_and_one_warning_says_so(
    toy_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "nemostream"):
        model = Model.load(toy_bundle.path, None, 1, "tensorrt", "cpu", 8)
    assert model.backend.name.startswith("torch ") and model.precision == "fp32"
    (record,) = caplog.records
    assert (
        "TensorRT computes on device cuda alone" in record.getMessage() and "torch computes toy" in record.getMessage()
    )


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *device: "a GPU")


@pytest.mark.parametrize("wrong", ["no package", "no build"])
def test_where_it_cannot_be_had_torch_computes(
    toy_bundle: Bundle,
    with_gpu: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wrong: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if wrong == "no package":
        monkeypatch.setattr(trt, "_package", lambda name: None)
    else:
        monkeypatch.setattr("nemostream.encoders.plans.export_step", lambda step, e, m, path, s: path.write_bytes(b"x"))
    assert tensorrt_if_here(toy_bundle, "bf16", "cuda", 8) is None
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    said = {"no package": "pip install 'livekit-plugins-nemo[tensorrt]'", "no build": "does not read the graph"}
    assert said[wrong] in record.getMessage() and record.getMessage().endswith("; torch computes toy")


def test_the_package_is_the_one_that_serves_the_gpu(with_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find().name.startswith("TensorRT for RTX ") and find().identity.endswith(" on sm89")
    assert find().identity == find("sm89").identity  # what was built elsewhere for such a GPU runs here
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    with pytest.raises(DeviceError, match="serves .*sm89.*, not sm90; run pip install"):
        find()


def test_progress_never_goes_back() -> None:
    said: list[str] = []
    phases = Phases(said.append)
    phases.start("all", None, 4)
    phases.step("all", 0)
    phases.start("part", "all", 2)
    phases.start("inner", "part", 10)
    phases.step("inner", 4)
    phases.finish("inner")
    phases.start("inner", "part", 10)
    phases.step("inner", 0)
    phases.step("part", 1)
    phases.finish("part")
    phases.step("never begun", 0)
    phases.step("all", 3)
    assert said == ["25 %", "31 %", "50 %", "100 %"]

"""What a step costs on this machine: measured, kept, and taken by engines of the same settings only."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemostream import calibration, machine
from nemostream.cost import Line
from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.model import Model
from nemostream.models.bundle import Bundle


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "nemostream" / "calibration"


def test_every_chunk_size_is_measured_kept_and_found_again(
    toy_bundle: Bundle, toy: Model, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "SECONDS", 0.02)
    monkeypatch.setattr(calibration.measure, "__defaults__", (0.02, calibration.time.perf_counter))
    seen: list[str] = []
    rows = calibration.calibrate(str(toy_bundle.path), "fp32", 1, progress=seen.append)
    assert [r.chunk_ms for r in rows] == toy.chunks_ms and seen == [f"{ms} ms" for ms in toy.chunks_ms]
    assert all(r.fixed_ms >= 0 and r.per_row_ms >= 0 and r.fixed_ms + r.per_row_ms > 0 for r in rows)
    found = calibration.cached(toy, 1)
    assert [(1e3 * found[t].fixed, 1e3 * found[t].per_row) for t in sorted(found)] == [
        (r.fixed_ms, r.per_row_ms) for r in rows
    ]
    engine = Engine(EngineConfig(str(toy_bundle.path), "fp32", 1))
    engine.load()
    for chunk_ms in toy.chunks_ms:
        group = engine._core._house.group(None, chunk_ms)
        assert group.load.cost.calibrated == found[group.chunk_frames]
    assert len(list(cache.iterdir())) == 1


def test_other_settings_are_another_calibration(toy: Model, toy_int8: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration._keep(calibration._file(toy, 1), {1: Line(0.001, 0.0001)})
    assert calibration.cached(toy, 1) == {1: Line(0.001, 0.0001)}
    assert calibration.cached(toy, 7) == {}
    assert calibration.cached(toy_int8, 1) == {}
    with monkeypatch.context() as patch:
        patch.setattr(machine, "processor", lambda: "another machine")
        assert calibration.cached(toy, 1) == {}
    calibration._file(toy, 1).write_bytes(b"{")
    assert calibration.cached(toy, 1) == {}


@pytest.mark.parametrize("line", [Line(0.004, 0.0005), Line(0.0, 0.001), Line(0.003, 0.0)])
def test_the_line_is_found(line: Line) -> None:
    found = calibration._fit({rows: line.of(rows) for rows in calibration.SIZES})
    assert (found.fixed, found.per_row) == (pytest.approx(line.fixed, abs=1e-9), pytest.approx(line.per_row, abs=1e-9))


def test_a_slow_model_is_measured_with_two_sizes_and_not_for_minutes(toy: Model) -> None:
    """By a clock on which a step takes a quarter of a second: two looks at each of two sizes."""
    calls = 0

    def clock() -> float:
        nonlocal calls
        calls += 1
        return calls * 0.25

    line = calibration.measure(toy, 1, seconds=0.5, clock=clock)
    assert calls < 20 and line.of(1) > 0


def test_on_a_device_steps_are_measured_up_to_what_the_engine_is_to_have(
    toy_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Device rows on the CPU; what it finds is what an engine of the same kind takes, and no other."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured: list[tuple[int, ...]] = []

    def measure(model: Model, chunk_frames: int, sizes: tuple[int, ...]) -> Line:
        measured.append(sizes)
        return Line(0.01, 0.001)

    monkeypatch.setattr(calibration, "measure", measure)
    load = Model.load
    monkeypatch.setattr(Model, "load", lambda path, p, t, e, d, most: load(path, p, t, "torch", "cpu", most))
    calibration.calibrate(str(toy_bundle.path), "fp32", 1, "cuda", "torch", 1000)
    assert measured == [(1, 4, 16, 62, 250, 1000)] * 4
    assert len(calibration.cached(load(toy_bundle.path, "fp32", 1, "torch"), 1)) == 4
    assert not calibration.cached(load(toy_bundle.path, "fp32", 1), 1)

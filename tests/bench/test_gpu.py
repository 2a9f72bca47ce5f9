"""bench.gpu from end to end at small sizes on the CPU, and where its figures come from: a wrong one shows."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.gpu import anatomy, report, speech
from bench.gpu.__main__ import arguments, main, sections
from bench.gpu.models import Source, drawn
from bench.gpu.plan import CPU, GPU
from bench.gpu.rows import Talk, agreement
from nemostream.device.group import DeviceGroup
from nemostream.greedy import RnntDecoder
from tests.conftest import ROOT

BARE = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {blocked!r}:
            raise ImportError(name + " is not on that machine")
sys.meta_path.insert(0, Only())
import bench.gpu.__main__
"""
BLOCKED = "msgspec yaml onnx onnxruntime soxr threadpoolctl sentencepiece typer rich av livekit pytest".split()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def source() -> Source:
    return drawn("tiny")


@pytest.fixture(scope="module")
def results(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sections, once."""
    out = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.gpu.__main__.drawn", lambda shape: source)
        main(["--cpu", "--out", str(out)])
    return out


def found(results: Path, section: str) -> Any:
    return json.loads((results / f"{section}.json").read_text())["found"]


def test_it_needs_torch_and_numpy_alone() -> None:
    """The machine with the GPU is bare."""
    command = [sys.executable, "-c", BARE.format(blocked=BLOCKED)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_section_runs(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.stem for path in results.glob("*.json")} == set(sections(CPU))
    main(["report", "--out", str(results)])
    printed = capsys.readouterr().out
    assert all(f"## {name} (none, torch {torch.__version__})" in printed for name in sections(CPU))
    assert sum(path.stat().st_size for path in results.iterdir()) < 1_000_000


def test_what_is_there_is_not_run_again(results: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.gpu.__main__.drawn", lambda shape: pytest.fail("a model was made"))
    before = {path: path.stat().st_mtime_ns for path in results.iterdir()}
    main(["--cpu", "--out", str(results)])
    assert {path: path.stat().st_mtime_ns for path in results.iterdir()} == before


def test_no_section_begins_when_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--cpu", "--out", str(tmp_path), "--seconds", "-1"])
    assert "no time left for parity-tiny" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["sweep-81"])
    assert "no section sweep-81; there are baseline, memory, parity-embedded" in capsys.readouterr().err


def test_the_commands_of_the_page_are_its_own() -> None:
    """They need a GPU, so tests/test_docs.py cannot run them."""
    page = (ROOT / "docs" / "gpu.md").read_text()
    given = re.findall(r"^python -m bench.gpu (.*?)(?:  #.*)?$", page, re.M)
    assert len(given) == 3 and all(arguments(shlex.split(line)) for line in given)
    told = {re.sub("SHAPE|CHUNK", "", name) for name in re.findall(r"^\| `([a-z]+-?[A-Z]*)` \|", page, re.M)}
    assert told == {re.sub(r"-.*", "-", name) for name in sections(GPU)}


def test_the_plan_tries_the_numbers_that_are_asked_for() -> None:
    wanted = {80: 2400, 160: 4000, 560: 8000, 1120: 12000}
    assert all(streams in GPU.streams[chunk_ms] for chunk_ms, streams in wanted.items())
    assert all(list(tried) == sorted(tried) for tried in GPU.streams.values())
    assert GPU.shape == "nemotron-0.6b" and set(sections(GPU)) >= {f"sweep-{chunk}" for chunk in wanted}


def test_parity_is_that_of_one_program(results: Path) -> None:
    """On the CPU float32 is compared with itself, and bf16 with float32."""
    exact, reduced = found(results, "parity-tiny")
    assert (exact["precision"], exact["error"], exact["agreement"]) == ("fp32", 0.0, 1.0)
    assert reduced["precision"] == "bf16" and 0 < reduced["error"] < 0.2
    assert exact["tokens"] > 5 and exact["alike_beside_others"] and reduced["alike_beside_others"]


def test_the_sweep_has_every_column_and_its_streams_agree(results: Path) -> None:
    rows = found(results, "sweep-160")
    assert [row["streams"] for row in rows] == [2, 4]
    for row in rows:
        assert row["agreement"] == 1.0 and row["refused"] == row["failed"] == 0
        assert 0 < row["response_p50_ms"] <= row["response_p95_ms"] <= row["response_p99_ms"]
        assert row["late"] <= row["chunks"] and 1 <= row["mean_batch"] <= row["streams"]
        assert row["holds"] == (row["response_p95_ms"] <= 160)


def test_the_baseline_says_the_same(results: Path) -> None:
    """Caches that are shifted and tokens that are fetched one by one: another program, the same text."""
    (row,) = found(results, "baseline")
    assert row["agreement"] == 1.0 and row["tokens"] > 3
    assert row["streams"] == pytest.approx(160 / row["chunk_takes_ms"])


def test_the_parts_of_a_step_are_told_apart(results: Path) -> None:
    for row in found(results, "parts"):
        parts = [row[f"{name}_ms"] for name in ("mel", "encoder", "decoding", "commit")]
        assert min(parts) > 0 and row["decoding_share"] == pytest.approx(row["decoding_ms"] / sum(parts))


def test_the_roofline_is_work_over_peaks(results: Path) -> None:
    section = found(results, "roofline")
    peaks, (one, three) = section["peaks"], section["rows"]
    assert three["gigaflop"] == pytest.approx(3 * one["gigaflop"])
    assert one["gigabytes"] < three["gigabytes"] < 3 * one["gigabytes"]  # the weights are read once
    for row in (one, three):
        least = max(row["gigaflop"] * 1e9 / peaks["fp32_operations"], row["gigabytes"] * 1e9 / peaks["memory_bytes"])
        assert row["least_ms"] == pytest.approx(1000 * least) and 0 < row["share"] < 1


def test_memory_is_what_the_tensors_take(results: Path, source: Source) -> None:
    (row,) = found(results, "memory")
    group = source.on("cpu", "fp32").group(2, 3)
    assert row["row_mb"] == group._state.row_bytes / 1e6 < row["all_mb_per_row"] < 2 * row["row_mb"]


def test_agreement_counts_edits_and_no_frames() -> None:
    said = [(1, 0), (2, 5), (3, 9)]
    assert agreement(said, said) == agreement([(1, 1), (2, 6), (3, 9)], said) == 1.0
    assert agreement(said[:2], said) == pytest.approx(2 / 3)
    assert agreement([(1, 0), (9, 5), (3, 9)], said) == pytest.approx(2 / 3)
    assert agreement([], []) == 1.0 and agreement(said, []) == 0.0 and agreement(said * 3, said) == 0.0


def test_a_random_model_says_what_the_hosts_decoder_says(source: Source) -> None:
    """Its steps, taken together, beside numpy over the same frames: streams that are not alike."""
    talk = speech.tones(3, 20.0, share=0.8)
    model = source.on("cpu", "fp32")
    its = Talk(model.group(2, 3), 3, talk)
    its.run(40)
    assert its.failed == 0 and sum(map(len, its.said)) > 20
    host = RnntDecoder(source.weights, source.info.max_symbols, 1)
    for stream in range(3):
        host.reset(0)
        heard = np.roll(
            talk[: len(talk) // its.step_samples * its.step_samples], -its.places[stream] * its.step_samples
        )
        mel, rows = model.mel.whole(heard), model.backend.rows(2, 1, 0)
        said = []
        for k in range(int(its.group.lanes.chunks[stream])):
            chunk = np.zeros((16, mel.shape[1]), np.float32)
            part = mel[max(16 * k - 7, 0) : 16 * k + 9]
            chunk[16 - len(part) :] = part
            tokens = host.step(np.array([0]), rows.step(1, chunk[None]), np.array([2]))[0]
            rows.commit(np.array([0]))
            said += [(t.id, 2 * k + t.frame) for t in tokens]
        assert its.said[stream] == said


def test_clips_are_taken_along(tmp_path: Path) -> None:
    from tests import clips

    speech.write(tmp_path / "clips.npz")
    read = speech.read(tmp_path / "clips.npz")
    assert len(read) == len(clips.TEXTS) and (tmp_path / "clips.npz").stat().st_size < 1_000_000
    assert np.abs(read[0] - clips.clip(next(iter(clips.TEXTS)))).max() < 1e-4


def test_a_step_is_timed_as_it_is_run(source: Source) -> None:
    group: DeviceGroup = source.on("cpu", "fp32").group(2, 5)
    packed = anatomy.step_of(group, 4)()
    assert packed.shape[1] == 4 and int(packed[-1].min()) == 1
    assert group.counters.steps == 0


def test_numbers_are_shown_short() -> None:
    text = report.table([{"a": True, "b": 0.12345, "c": 12345.6, "d": 7}])
    assert text.splitlines()[-1] == "| yes | 0.123 | 12,346 | 7 |"

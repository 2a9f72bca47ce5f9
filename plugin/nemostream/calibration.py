"""What a step of a model costs on this machine, measured once and kept under XDG_CACHE_HOME/nemostream/calibration.

for row in calibrate(None): print(row.chunk_ms, row.streams)      # the command `nemostream calibrate`
costs = cached(model, threads=None)                               # what an engine takes on loading: T -> Line

An engine never measures by itself: what it would measure beside running streams or other processes that start is wrong,
disturbs those, and would be kept. Without a calibration it learns from its own steps, and refuses nobody until it has.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from nemostream import admission, blas, machine
from nemostream.cost import Line, StepCost
from nemostream.model import Model
from nemostream.models import catalog
from nemostream.scheduler import Slot
from nemostream.work import Batch, Work

SIZES = (1, 4, 16)
"""Rows of the steps that are measured."""
SECONDS = 0.5
"""For each chunk size; a model so slow that this is not enough for two sizes takes longer."""
ROUNDS = 3, 30
"""Steps of each size that are measured: at least, where there is time, and at most."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Capacity:
    """One line of the table.

    Attributes:
        streams: live streams that there is time for, if all have this chunk size (admission.TIME_LIMIT).
    """

    chunk_ms: int
    fixed_ms: float
    per_row_ms: float
    streams: int


def calibrate(
    model: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    encoder: str = "onnx",
    max_streams: int = 256,
    progress: Callable[[str], None] = lambda what: None,
) -> list[Capacity]:
    """Measure every chunk size of a model on this machine, which should have nothing else to do, and keep the result
    for engines of the same settings.

    Args:
        model: a name or a path; None: the embedded model.
        precision, threads, device, encoder: as the engine is going to run (EngineConfig).
        max_streams: what it is going to have; only on a device, where steps are measured up to so many rows.
        progress: told what is being measured.

    Raises:
        UnknownModel, BundleError, CheckpointError: the model cannot be had.
        DeviceError, EngineFull: the device is not here, or has no memory for so many rows.
        OSError: the cache cannot be written.
    """
    loaded = Model.load(catalog.resolve(model), precision, threads, encoder, device, max_streams)
    sizes: Sequence[int] = SIZES
    if device != "cpu":
        largest = (*SIZES, *(max_streams // part for part in (16, 4, 1)))
        sizes = tuple(sorted({size for size in largest if 0 < size <= max_streams}))
    costs: dict[int, Line] = {}
    for chunk_frames in loaded.bundle.info.chunk_frames:
        progress(f"{chunk_frames * loaded.frame_ms} ms")
        costs[chunk_frames] = measure(loaded, chunk_frames, sizes)
    _keep(_file(loaded, threads), costs)
    return [_capacity(t * loaded.frame_ms, line) for t, line in sorted(costs.items())]


def cached(model: Model, threads: int | None) -> dict[int, Line]:
    """What was measured for this model, machine and version, by frames of a chunk; empty if nothing was."""
    try:
        return msgspec.json.decode(_file(model, threads).read_bytes(), type=dict[int, Line])
    except (OSError, msgspec.MsgspecError):
        return {}


def measure(
    model: Model,
    chunk_frames: int,
    sizes: Sequence[int] = SIZES,
    seconds: float = SECONDS,
    clock: Clock = time.perf_counter,
) -> Line:
    """The cost of a step, mel frames to tokens, on scratch rows that hear noise, by batches of these sizes."""
    group = model.group("calibration", model, chunk_frames, sizes[-1])
    rng = np.random.default_rng(0)
    samples = model.mel.span(8 * chunk_frames)
    work = [Work(0.1 * rng.standard_normal(samples, np.float32), chunk_frames) for _ in range(sizes[-1])]
    for row in range(sizes[-1]):
        group.take(row, model.decoder_name(None), Slot())
    took: dict[int, list[float]] = {}

    def step(rows: int) -> float:
        began = clock()
        group.run(Batch.of(range(rows), work[:rows]), rows)
        return clock() - began

    with blas.one_thread():
        began = clock()
        for rows in sizes:
            # A first step of each size makes its bindings and arenas. A size that would not leave time is left out.
            if len(took) > 1 and (clock() - began) + ROUNDS[0] * 2 * max(took[max(took)]) > seconds:
                break
            step(rows)
            took[rows] = [step(rows)]
        while clock() - began < seconds and min(map(len, took.values())) < ROUNDS[1]:
            for rows, so_far in took.items():
                so_far.append(step(rows))
    # The fastest: whatever makes a step slower is not of this model.
    return _fit({rows: min(times) for rows, times in took.items()})


def _fit(took: dict[int, float]) -> Line:
    """The line that misses each size by the smallest parts of its own time; neither part is negative."""
    rows = np.array(list(took), float)
    seconds = np.array(list(took.values()))
    design = np.stack([1 / seconds, rows / seconds], axis=1)
    (fixed, per_row), *_ = np.linalg.lstsq(design, np.ones(len(rows)), rcond=None)
    if fixed < 0:
        fixed, per_row = 0.0, float(np.mean(seconds / rows))
    if per_row < 0:
        fixed, per_row = float(np.mean(seconds)), 0.0
    return Line(float(fixed), float(per_row))


def _capacity(chunk_ms: int, line: Line) -> Capacity:
    return Capacity(chunk_ms, 1e3 * line.fixed, 1e3 * line.per_row, admission.carries(StepCost(line), chunk_ms / 1e3))


def _keep(file: Path, costs: dict[int, Line]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    part.write_bytes(msgspec.json.encode(costs))
    part.replace(file)


def _file(model: Model, threads: int | None) -> Path:
    """Where the costs of this model are kept: another machine, version or setting has another file."""
    from nemostream.wire import package

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    setting = [model.bundle.hash, model.precision, model.backend.name, threads or cores, machine.processor(), package()]
    digest = hashlib.sha256(msgspec.json.encode(setting)).hexdigest()[:16]
    return catalog.cache() / "calibration" / f"{model.bundle.info.name}-{model.precision}-{digest}.json"

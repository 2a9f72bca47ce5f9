"""Where the time of a step goes: against the least that its arithmetic and its memory traffic would take, between its
parts, and on the host; and what rows take of the memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bench.engine.roofline import step_work
from bench.gpu.clock import device_seconds, host_seconds
from bench.gpu.models import OnDevice, Source
from bench.gpu.plan import Plan
from bench.gpu.rows import Talk
from nemostream.device.decode import RnntTensors
from nemostream.device.fused import iterations
from nemostream.device.graphs import Graphs
from nemostream.device.group import DeviceGroup
from nemostream.protocol import Samples


def peaks(plan: Plan) -> dict[str, float]:
    """What this device reaches: operations a second of square products, bytes a second of copies (read and written)."""
    device, side = torch.device(plan.device), plan.product
    found: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        found[f"{name}_operations"] = 2.0 * side**3 / device_seconds(partial(torch.matmul, a, b), plan.rounds)
    source = torch.ones(plan.copy_mb << 18, device=device)
    target = torch.empty_like(source)
    found["memory_bytes"] = 2.0 * source.nbytes / device_seconds(partial(target.copy_, source), plan.rounds)
    host = torch.ones(plan.copy_mb << 14, pin_memory=device.type == "cuda")
    there = torch.empty_like(host, device=device)
    upload = device_seconds(partial(there.copy_, host, non_blocking=True), plan.rounds)
    download = device_seconds(partial(host.copy_, there, non_blocking=True), plan.rounds)
    return {**found, "upload_bytes": host.nbytes / upload, "download_bytes": host.nbytes / download}


def roofline(plan: Plan, source: Source, talk: Samples) -> dict[str, Any]:
    """For each chunk size and size of a batch: what a captured step takes, and the least that it could."""
    found = peaks(plan)
    rows = []
    for chunk_ms, group in _groups(plan, source):
        for size in plan.sizes:
            counted = step_work(cast(Any, source.info), chunk_ms // 80, size, "fp32")
            operations = counted.products + counted.other
            moved = counted.bytes * (1.0 if plan.precision == "fp32" else 0.5)
            seconds = device_seconds(step_of(group, size), plan.rounds)
            least = max(operations / found[f"{plan.precision}_operations"], moved / found["memory_bytes"])
            rows.append(
                {
                    "chunk_ms": chunk_ms,
                    "batch": size,
                    "step_ms": seconds * 1000,
                    "least_ms": least * 1000,
                    "share": least / seconds,
                    "gigaflop": operations / 1e9,
                    "gigabytes": moved / 1e9,
                    "streams_at_this_batch": size * chunk_ms / 1000 / seconds,
                }
            )
    return {"peaks": found, "rows": rows}


def parts(plan: Plan, source: Source, talk: Samples) -> list[dict[str, Any]]:
    """For each chunk size and size of a batch: what mel, encoder, decoding and commit take on the device when each is a
    graph of its own, the share of decoding, and what the host adds to a step."""
    rows = []
    for chunk_ms, group in _groups(plan, source):
        for size in plan.sizes:
            timed = {name: device_seconds(run, plan.rounds) for name, run in _parts(group, size).items()}
            whole = device_seconds(step_of(group, size), plan.rounds)
            its = Talk(group, size, talk)
            its.run(2)
            every = np.arange(size)

            def hear_and_step(its: Talk = its, every: Any = every) -> None:
                its.hear(every)
                its.step(every)

            wall = host_seconds(hear_and_step, plan.rounds)
            rows.append(
                {
                    "chunk_ms": chunk_ms,
                    "batch": size,
                    **{f"{name}_ms": seconds * 1000 for name, seconds in timed.items()},
                    "step_ms": whole * 1000,
                    "decoding_share": timed["decoding"] / sum(timed.values()),
                    "wall_ms": wall * 1000,
                    "host_ms": max(0.0, wall - whole) * 1000,
                    "host_ms_per_stream_second": max(0.0, wall - whole) * 1000 / size / (chunk_ms / 1000),
                }
            )
    return rows


def memory(plan: Plan, source: Source, talk: Samples) -> list[dict[str, Any]]:
    """For each chunk size: bytes of a row, of all that a group takes for each, and how many rows there is room for."""
    rows = []
    for chunk_ms in plan.chunks_ms:
        model = source.on(plan.device, plan.precision)
        weights = sum(p.nbytes for p in model.backend.module.parameters())
        before = _allocated()
        group = model.group(chunk_ms // 80, plan.sizes[-1])
        taken = _allocated() - before if plan.device == "cuda" else sum(t.nbytes for t in _tensors(group))
        total = torch.cuda.get_device_properties(0).total_memory if plan.device == "cuda" else 0
        per_row = taken / plan.sizes[-1]
        rows.append(
            {
                "chunk_ms": chunk_ms,
                "rows": plan.sizes[-1],
                "weights_mb": weights / 1e6,
                "row_mb": group._state.row_bytes / 1e6,
                "all_mb_per_row": per_row / 1e6,
                "rows_there_is_room_for": int(max(0, total - weights) / per_row),
            }
        )
        del group, model
        if plan.device == "cuda":
            torch.cuda.empty_cache()
    return rows


def step_of(group: DeviceGroup, size: int) -> Callable[[], Tensor]:
    """The step of that size over the first rows, without work: it computes the same as with it."""
    bucket = next(s for s in group._sizes if s >= size)
    numbers = group._staging.numbers(bucket)
    numbers[:] = 0
    numbers[0] = np.arange(bucket)
    with torch.inference_mode():
        group._staging.upload(bucket)
    tensors = group._staging.tensors(bucket)
    return lambda: group._graphs.run(("step", bucket, False), partial(group._fused.step, *tensors, False))


def _groups(plan: Plan, source: Source) -> Any:
    """One group at a time of every chunk size, of as many rows as the largest batch."""
    for chunk_ms in plan.chunks_ms:
        model: OnDevice = source.on(plan.device, plan.precision)
        yield chunk_ms, model.group(chunk_ms // 80, plan.sizes[-1])
        if plan.device == "cuda":
            torch.cuda.empty_cache()


def _parts(group: DeviceGroup, size: int) -> dict[str, Callable[[], Tensor]]:
    state, decoder = group._state, group._decoders_here["rnnt"]
    assert isinstance(decoder, RnntTensors)
    encode, mel, t = group._fused._encode, group._fused._mel, group.chunk_frames
    device = group._backend.device
    rows, zeros = torch.arange(size, device=device), torch.zeros(size, dtype=torch.int64, device=device)
    samples = torch.zeros((size, group.lanes.span), device=device)
    keep, frames = zeros.bool(), torch.full_like(zeros, t)
    graphs = Graphs(device)
    with torch.inference_mode():
        heard = mel(samples, keep)
        encoded, *new = encode(rows, heard, zeros, False)

    def commit() -> Tensor:
        state.commit(rows, new, keep)
        return state.position

    functions: dict[str, Callable[[], Tensor]] = {
        "mel": lambda: mel(samples, keep),
        "encoder": lambda: encode(rows, heard, zeros, False)[0],
        "decoding": lambda: decoder.step(rows, encoded, frames, keep, iterations(t)).token,
        "commit": commit,
    }
    for name, function in functions.items():
        graphs.prepare(name, function)
    return {name: partial(graphs.run, name, function) for name, function in functions.items()}


def _allocated() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def _tensors(group: DeviceGroup) -> list[Tensor]:
    decoders = [tensor for decoder in group._decoders_here.values() for tensor in decoder.small]
    state = group._state
    return [state.rings, state.tails, *state.front, state.position, *group._aside, *decoders]

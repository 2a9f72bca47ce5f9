"""Does the device say what the CPU says? Frames and tokens of each precision against float32 on the CPU, which the
tests hold against onnxruntime and NeMo; and whether a row's neighbours change it."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.gpu.models import Source
from bench.gpu.plan import Plan
from bench.gpu.rows import Talk, agreement
from nemostream.encoders import Floats
from nemostream.protocol import Samples


def parity(plan: Plan, source: Source, talk: Samples) -> list[dict[str, Any]]:
    """A row for each precision and chunk size: the error of the frames over their root mean square, the agreement of
    tokens, and whether a row was the same to the bit beside silence and beside noise."""
    rows = []
    for chunk_ms in plan.chunks_ms:
        frames, streams = chunk_ms // 80, plan.parity_streams
        chunks = max(4, int(plan.parity_seconds * 1000 / chunk_ms))
        exact = _encode(source, "cpu", "fp32", frames, talk, chunks)
        expected = _say(source, "cpu", "fp32", frames, talk, streams, chunks)
        for precision in plan.precisions:
            found = _encode(source, plan.device, precision, frames, talk, chunks)
            said = _say(source, plan.device, precision, frames, talk, streams, chunks)
            error = np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean())
            same = [agreement(a, b) for a, b in zip(said, expected, strict=True)]
            rows.append(
                {
                    "model": source.info.name,
                    "chunk_ms": chunk_ms,
                    "precision": precision,
                    "error": float(error),
                    "agreement": float(np.mean(same)),
                    "tokens": sum(map(len, expected)),
                    "alike_beside_others": _alike(source, plan, precision, frames, talk),
                }
            )
    return rows


def _encode(source: Source, device: str, precision: str, frames: int, talk: Samples, chunks: int) -> Floats:
    """(chunks * T, D): one stream's frames, through EncoderRows."""
    model = source.on(device, precision)
    rows = model.backend.rows(frames, 2, 0)
    mel = model.mel.whole(talk)
    out = []
    for k in range(chunks):
        first = 8 * frames * k - 7
        chunk = np.zeros((8 * frames, mel.shape[1]), np.float32)
        part = mel[max(first, 0) : first + 8 * frames]
        chunk[max(-first, 0) : max(-first, 0) + len(part)] = part
        out.append(rows.step(2, np.stack([chunk, chunk]))[0].copy())
        rows.commit(np.arange(2))
    return np.concatenate(out)


def _say(
    source: Source, device: str, precision: str, frames: int, talk: Samples, streams: int, chunks: int
) -> list[list[tuple[int, int]]]:
    its = Talk(source.on(device, precision).group(frames, streams), streams, talk)
    its.run(chunks)
    return its.said


def _alike(source: Source, plan: Plan, precision: str, frames: int, talk: Samples) -> bool:
    """The tokens, confidences and state of row 1 of 3, with other neighbours."""
    model = source.on(plan.device, precision)
    states = []
    for loud in (0.0, 0.9):
        its = Talk(model.group(frames, 3), 3, talk)
        noise = np.random.RandomState(int(loud * 10))
        for _ in range(6):
            its.hear(np.arange(3))
            for row in (0, 2):
                window = its.group.lanes.windows[row]
                window[:] = loud * noise.standard_normal(len(window))
            ready = np.arange(3)[its.group.lanes.ready(np.arange(3))]
            if len(ready):
                its.step(ready)
        state = its.group.export(1)
        states.append({**state.encoder_row, **{f"decoder {name}": a for name, a in state.decoder_row.items()}})
    return all(np.array_equal(states[0][name], states[1][name]) for name in states[0])

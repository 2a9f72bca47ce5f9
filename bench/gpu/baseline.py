"""What people have: the same module, called for one stream at a time, its caches shifted by concatenation, its tokens
fetched one by one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.gpu.clock import wait
from bench.gpu.models import OnDevice, Source
from bench.gpu.plan import Plan
from bench.gpu.rows import Talk, agreement
from nemostream.device.decode import RnntTensors
from nemostream.device.features import LogMel
from nemostream.device.terms import TermTables
from nemostream.protocol import Samples

CHUNKS = 40
"""Of one stream, at most."""


def baseline(plan: Plan, source: Source, talk: Samples) -> list[dict[str, Any]]:
    """For each chunk size: the median time of a chunk, how many streams that is, and the agreement with the engine."""
    rows = []
    for chunk_ms in plan.chunks_ms:
        model = source.on(plan.device, plan.precision)
        chunks = max(4, min(CHUNKS, int(plan.parity_seconds * 1000 / chunk_ms)))
        engine = Talk(model.group(chunk_ms // 80, 1), 1, talk)
        engine.run(chunks)
        one = _One(model, chunk_ms // 80)
        heard = np.roll(talk, -int(engine.places[0]) * engine.step_samples)
        times = [one.chunk(heard, k) for k in range(int(engine.group.lanes.chunks[0]))]
        seconds = float(np.median(times[2:]))
        rows.append(
            {
                "chunk_ms": chunk_ms,
                "chunk_takes_ms": seconds * 1000,
                "streams": chunk_ms / 1000 / seconds,
                "tokens": len(one.said),
                "agreement": agreement(one.said, engine.said[0]),
            }
        )
    return rows


class _One:
    """One stream."""

    def __init__(self, model: OnDevice, frames: int) -> None:
        backend, info = model.backend, model.source.info
        self._module, self._frames, self._info, self._filters = backend.module, frames, info, model.mel
        self._mel = LogMel(model.mel).to(backend.device)
        self._device = backend.device
        terms = TermTables(info.vocab_size, 1, backend.device)
        self._decoder = RnntTensors(model.source.weights, 1, terms, backend.device, info.max_symbols)
        state = backend.state(frames, 1, 0)
        self._front = [tensor[:1].clone() for tensor in state.front]
        self._caches: list[Tensor] = []
        for layer in range(info.encoder.n_layers):
            rings = [state.rings[2 * layer + kind, :1].clone() for kind in (0, 1)]
            self._caches += [*rings, state.tails[layer, :1].clone()]
        self._heard = 0
        self.said: list[tuple[int, int]] = []

    @torch.inference_mode()
    def chunk(self, talk: Samples, k: int) -> float:
        """Hear and say chunk k; the seconds that it took."""
        began = time.perf_counter()
        span, step = self._filters.span(8 * self._frames), 8 * self._frames * self._filters.hop
        front = 7 * self._filters.hop + self._filters.before
        begin = k * step - front
        samples = np.zeros(span, np.float32)
        part = talk[max(begin, 0) : begin + span]
        samples[span - len(part) :] = part
        first = torch.tensor([k == 0], device=self._device)
        mel = self._mel(torch.from_numpy(samples)[None].to(self._device), first)
        columns, t = self._info.encoder.left_context, self._frames
        index = torch.arange(columns, device=self._device)
        window = min(self._heard, columns // t * t)
        age = torch.where(index >= columns - window, columns - index, 0)[None]
        left = torch.tensor([7 if k == 0 else 0], device=self._device)
        prompt = torch.zeros(1, dtype=torch.int64, device=self._device)
        encoded, *new = self._module.encode(
            mel, left, age, prompt, self._front, lambda layer: self._caches[3 * layer : 3 * layer + 3]
        )
        self._front = new[:3]
        for i, fresh in enumerate(new[3:]):
            self._caches[i] = fresh if i % 3 == 2 else torch.cat([self._caches[i][:, :, t:], fresh], 2)
        self._heard += t
        self._decode(encoded.float(), k)
        wait()
        return time.perf_counter() - began

    def _decode(self, encoded: Tensor, k: int) -> None:
        decoder = self._decoder
        (enc, enc_bias), (out, out_bias) = decoder._joint["enc"], decoder._joint["out"]
        for t in range(self._frames):
            projected = encoded[:, t] @ enc + enc_bias
            for _ in range(self._info.max_symbols):
                token = int((torch.relu(projected + decoder.g) @ out + out_bias).argmax())
                if token == decoder.blank:
                    break
                self.said.append((token, k * self._frames + t))
                spoken = torch.tensor([token], device=self._device)
                decoder.g, decoder.h, decoder.c = decoder._predict(spoken, decoder.h, decoder.c)

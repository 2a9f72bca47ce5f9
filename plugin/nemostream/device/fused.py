"""A step from samples to tokens as functions on tensors that stay where they are: mel, encoder, decoding, commit. No
branch depends on data and nothing is copied to the host, so that each can be captured (graphs.py).

    fused = Fused(encode, LogMel(filters), state, {"rnnt": decoder}, capacity)
    packed = fused.step(samples, numbers, gathered=False)      # (3N + 1, B) int32
    packed = fused.more(numbers)                               # rows that are still open go on

What a row is to do stands in `numbers`, (4 + decoders, B) int64: its row, the place of its language in the prompt,
whether the chunk is the stream's first, whether it keeps what the step computes, and for each decoder how many frames
it takes. A row whose frames are not finite keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nemostream.device.decode import CtcTensors, RnntTensors, Said
from nemostream.device.features import LogMel
from nemostream.encoders.resident import Encode
from nemostream.encoders.tensors import RowTensors

MORE = 4
"""Iterations of RNN-T with which rows that have more to say go on."""
FINITE, OPEN = 1, 2
"""Bits of a row's status."""

Decoders = Mapping[str, RnntTensors | CtcTensors]


def iterations(chunk_frames: int) -> int:
    """Of RNN-T in a step: enough for most batches. A row needs one more than it says tokens, and speech comes to four
    or five tokens a second."""
    return 3 + chunk_frames // 2


class Fused:
    """One group's step: its encoder, the rows' state, its decoders."""

    def __init__(self, encode: Encode, mel: LogMel, state: RowTensors, decoders: Decoders, max_batch: int) -> None:
        self._encode, self._mel, self._state, self._decoders = encode, mel, state, decoders
        for decoder in decoders.values():
            if isinstance(decoder, RnntTensors):
                decoder.room(max_batch, state.chunk_frames)

    @property
    def numbers(self) -> int:
        """Of each row on its way in."""
        return 4 + len(self._decoders)

    @property
    def results(self) -> int:
        """Of each row on its way out, at most."""
        t = self._state.chunk_frames
        said = [iterations(t) if isinstance(d, RnntTensors) else t for d in self._decoders.values()]
        return 3 * max(sum(said), MORE) + 1

    @property
    def goes_on(self) -> bool:
        """Whether a row may have more to say than a step says: `more`."""
        return any(isinstance(decoder, RnntTensors) for decoder in self._decoders.values())

    @property
    def small(self) -> list[Tensor]:
        """What a row's steps overwrite in place, the row in front."""
        decoders = [tensor for decoder in self._decoders.values() for tensor in decoder.small]
        return [self._state.position, *self._state.small, *decoders]

    @torch.inference_mode()
    def step(self, samples: Tensor, numbers: Tensor, gathered: bool) -> Tensor:
        """One chunk of each row.

        Args:
            samples: (B, span) float32.
            numbers: see above; what is left of it for rows that are not finite is written back into it.
            gathered: rows may be any; else they are the first B and read where they are.

        Returns:
            (3N + 1, B) int32: N tokens (-1: none), their frames, their confidences as bits of a float32, the status.
        """
        rows, prompts, first, keep = numbers[:4]
        mel = self._mel(samples, first.bool())
        encoded, *new = self._encode(rows, mel, prompts, gathered)
        finite = torch.isfinite(encoded).flatten(1).all(1)
        numbers[3:].mul_(finite)
        kept, t = keep.bool(), self._state.chunk_frames
        said = [
            decoder.step(rows, encoded, frames, kept, iterations(t))
            if isinstance(decoder, RnntTensors)
            else decoder.step(rows, encoded, frames, kept)
            for decoder, frames in zip(self._decoders.values(), numbers[4:], strict=True)
        ]
        self._state.commit(rows, new, kept)
        return _packed(said, finite)

    @torch.inference_mode()
    def more(self, numbers: Tensor) -> Tensor:
        """Go on decoding the last step, for rows whose status says OPEN; packed as `step`'s."""
        rows, keep = numbers[0], numbers[3].bool()
        said = [
            decoder.more(rows, frames, keep, MORE)
            for decoder, frames in zip(self._decoders.values(), numbers[4:], strict=True)
            if isinstance(decoder, RnntTensors)
        ]
        return _packed(said, torch.ones_like(keep))


def _packed(said: Sequence[Said], finite: Tensor) -> Tensor:
    still = torch.stack([its.open for its in said]).any(0)
    status = finite.int() * FINITE + still.int() * OPEN
    parts = [its.token for its in said] + [its.frame for its in said]
    parts += [its.confidence.contiguous().view(torch.int32) for its in said]
    return torch.cat([*parts, status[None].int()])

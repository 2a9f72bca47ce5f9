"""Drives encoder rows as an engine would: many streams in one batch, each at its own chunk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nemostream.encoders import EncoderRows, Floats, Indices
from nemostream.mel import MelFilters
from nemostream.models.bundle import Bundle


def log_mel(bundle: Bundle, samples: Floats) -> Floats:
    """(F, n_mels): every frame that `samples` complete."""
    return MelFilters(bundle.weights["mel.filters"], bundle.weights["mel.window"]).whole(samples)


def chunk_of(mel: Floats, k: int, frames: int) -> Floats:
    """Chunk k of a stream: mel frames [8Tk-7, 8Tk+8T-8], zero before the stream and behind its end."""
    out = np.zeros((8 * frames, mel.shape[1]), np.float32)
    first = 8 * frames * k - 7
    part = mel[max(first, 0) : first + 8 * frames]
    offset = max(-first, 0)
    out[offset : offset + len(part)] = part
    return out


def chunks_in(mel: Floats, frames: int) -> int:
    """Chunks that `mel` completes."""
    return (len(mel) + 7) // (8 * frames)


def encode(
    rows: EncoderRows,
    mels: Sequence[Floats],
    starts: Sequence[int] | None = None,
    order: np.random.RandomState | None = None,
) -> list[Floats]:
    """Stream every mel through its own row, all of them in each batch.

    Args:
        starts: the tick at which each stream begins; before it, and behind its end, its row rides along uncommitted.
        order: draws a permutation for every other tick, which is then a gathered batch.

    Returns:
        (T', D) of each stream.
    """
    count, frames = len(mels), rows.chunk_frames
    starts = starts or [0] * count
    lengths = [chunks_in(mel, frames) for mel in mels]
    out: list[list[Floats]] = [[] for _ in mels]
    for row in range(count):
        rows.reset(row)
    for tick in range(max(start + length for start, length in zip(starts, lengths, strict=True))):
        chunk = [tick - start for start in starts]
        ready = [i for i in range(count) if 0 <= chunk[i] < lengths[i]]
        batch = np.stack([chunk_of(mels[i], max(chunk[i], 0), frames) for i in range(count)])
        place: Indices = np.arange(count)
        if order is not None and tick % 2:
            place = order.permutation(count)
            encoded = rows.step(place, batch[place])
        else:
            encoded = rows.step(count, batch)
        where = np.argsort(place)
        for i in ready:
            out[i].append(encoded[where[i]].copy())
        rows.commit(where[ready])
    return [np.concatenate(parts) for parts in out]

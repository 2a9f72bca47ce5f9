"""The chunk size of uploads: a file waits for nobody, so it gets the most context that its model has."""

from __future__ import annotations

import functools

from nemostream.errors import NemostreamError
from nemostream.models import catalog
from nemostream.models.bundle import read_info
from nemostream.protocol import SAMPLE_RATE


@functools.lru_cache
def largest_chunk_ms(model: str | None) -> int | None:
    """The largest that a model offers; None where only the engine knows. May read the model's file: not for a loop."""
    try:
        info = read_info(catalog.resolve(model))
    except NemostreamError:
        return None  # one of sherpa-onnx, which has one size, or a name that is the engine's own
    return max(info.chunk_frames) * info.frame_samples * 1000 // SAMPLE_RATE

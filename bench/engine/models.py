"""The bundle that is measured: a name, a folder, a .nemo, or a random model that is made once under .cache/bench."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bench.engine.audio import CACHE
from bench.speech import ROOT
from nemostream.models import catalog

SOURCES = ("bench/random_model.py", "bench/random_weights.py", "bench/speech.py", "plugin/train/start.nemo")


def bundle(model: str | None, shape: str | None) -> Path:
    """The bundle's folder: of `shape`, a random one, if that is given.

    Raises:
        ValueError: no such shape.
        NemostreamError: the model cannot be had.
    """
    return catalog.resolve(model) if shape is None else _random(shape)


def _random(shape: str) -> Path:
    from bench import random_model  # needs torch, which no other model does
    from nemostream.models.convert import convert

    if shape not in random_model.SHAPES:
        raise ValueError(f"no shape {shape!r}; choose one of {', '.join(random_model.SHAPES)}")
    digest = hashlib.sha256()
    for file in (*(ROOT / name for name in SOURCES), *sorted((ROOT / "plugin/nemostream/models").glob("*.py"))):
        digest.update(file.read_bytes())
    digest.update(os.environ.get("SHARED", "").encode())  # which speech the blank was tuned on
    folder = CACHE / f"{shape}-{digest.hexdigest()[:12]}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        checkpoint = random_model.write(shape, CACHE / f"{folder.name}.nemo")
        convert(checkpoint, folder, name=shape)
        checkpoint.unlink()
    return folder

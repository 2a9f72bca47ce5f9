"""Fixtures for all tests: converted models, made once and kept under .cache/ until the converter's source changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nemostream.errors import BundleError
from nemostream.models.bundle import Bundle, load_bundle
from nemostream.models.convert import convert

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
CACHE = ROOT / ".cache" / "bundles"


def converted(checkpoint: Path) -> Bundle:
    """The bundle of `checkpoint` in both precisions; converted only if it, or what converts it, has changed."""
    digest = hashlib.sha256(checkpoint.read_bytes())
    for source in sorted((ROOT / "plugin" / "nemostream" / "models").glob("*.py")):
        digest.update(source.read_bytes())
    folder = CACHE / f"{checkpoint.stem}-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        try:
            convert(checkpoint, folder)
        except BundleError:
            if not folder.is_dir():  # else another test process made it meanwhile
                raise
    return load_bundle(folder)


@pytest.fixture(scope="session")
def toy_nemo() -> Path:
    """A trained toy: 19 tone words, 4 layers of 128, lookaheads 13, 6, 1, 0, RNN-T and CTC."""
    return DATA / "toy.nemo"


@pytest.fixture(scope="session")
def toy_bundle(toy_nemo: Path) -> Bundle:
    return converted(toy_nemo)

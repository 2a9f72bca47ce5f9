"""Fixtures for all tests: converted models, made once and kept under .cache/ until the converter's source changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.errors import BundleError
from nemostream.models.bundle import Bundle, load_bundle
from nemostream.models.convert import Settings, convert
from nemostream_agent.livekit_server import LiveKitServer, find_or_build
from tests.random_model import KINDS, write_random_nemo
from tests.workers import pytest_runtest_setup, pytest_xdist_make_scheduler

__all__ = ["pytest_runtest_setup", "pytest_xdist_make_scheduler"]

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
CACHE = ROOT / ".cache" / "bundles"


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


# At import, not on use: what runs is the source as it was imported, even if someone saves a file meanwhile.
_CONVERTER = _digest([*sorted((ROOT / "plugin" / "nemostream" / "models").glob("*.py")), Path(__file__)])
_RANDOM = _digest((ROOT / "tests" / "random_model.py", ROOT / "tests" / "speech.py", DATA / "toy.nemo"))


def converted(checkpoint: Path) -> Bundle:
    """The bundle of `checkpoint` in both precisions; converted only if it, or what converts it, has changed."""
    folder = CACHE / f"{checkpoint.stem}-{_digest([checkpoint])}-{_CONVERTER}"
    if not folder.is_dir():
        try:
            # The toy's delay as measured on its own words; it matters for word times and for flushes within a word.
            convert(checkpoint, folder, settings=Settings(emission_delay_ms=240))
        except BundleError:
            if not folder.is_dir():  # else another test process made it meanwhile
                raise
    return load_bundle(folder)


@pytest.fixture(scope="session")
def toy_nemo() -> Path:
    """A trained toy: 19 tone words, 4 layers of 128, lookaheads 13, 6, 1, 0, RNN-T and CTC."""
    return DATA / "toy.nemo"


@pytest.fixture(scope="session")
def random_nemo(toy_nemo: Path) -> Path:
    """Random weights, 4 layers of 128, and the settings that the toy does not have (tests/random_model.py)."""
    return _random(toy_nemo, "hybrid", "random")


@pytest.fixture(scope="session")
def kind_bundle(toy_nemo: Path) -> Callable[[str], Bundle]:
    """Random weights of any architecture (tests/random_model.KINDS)."""
    return lambda name: converted(_random(toy_nemo, name, name))


def _random(toy: Path, kind: str, name: str) -> Path:
    path = CACHE / f"{name}-{_RANDOM}-{_CONVERTER}.nemo"
    if not path.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        write_random_nemo(part, toy, KINDS[kind])
        part.rename(path)
    return path


@pytest.fixture(scope="session")
def toy_bundle(toy_nemo: Path) -> Bundle:
    return converted(toy_nemo)


@pytest.fixture(scope="session")
def random_bundle(random_nemo: Path) -> Bundle:
    return converted(random_nemo)


@pytest.fixture(scope="session")
def server() -> Iterator[LiveKitServer]:
    """The one livekit-server of a test run; each test has a room of its own."""
    with LiveKitServer(find_or_build()) as server:
        yield server


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """One real engine with the embedded English model, for the adapter and for rooms."""
    engine = Engine(EngineConfig())
    engine.load(None)
    yield engine
    engine.close()

"""Names, folders and .nemo files all lead to a bundle folder, or to one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nemostream.encoders.onnx import OnnxBackend
from nemostream.errors import UnknownModel
from nemostream.models import catalog
from nemostream.models.bundle import Bundle, load_bundle


def test_the_default_ships_and_runs() -> None:
    assert catalog.DEFAULT in catalog.names()
    path = catalog.resolve(None)
    assert path == catalog.resolve(catalog.DEFAULT)
    bundle = load_bundle(path)
    rows = OnnxBackend(bundle, bundle.info.precisions[0], 1).rows(2, 1, 0)
    assert rows.step(1, np.zeros((1, 16, bundle.info.mel.n_mels), np.float32)).shape == (1, 2, 144)
    assert sum(file.stat().st_size for file in path.iterdir()) < 20e6


def test_a_folder_is_itself(toy_bundle: Bundle) -> None:
    assert catalog.resolve(toy_bundle.path) == catalog.resolve(str(toy_bundle.path)) == toy_bundle.path


def test_a_nemo_is_converted_once(toy_nemo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copy(toy_nemo, tmp_path / "mine.nemo")
    path = catalog.resolve(tmp_path / "mine.nemo")
    assert path.is_relative_to(tmp_path / "cache" / "nemostream")
    assert load_bundle(path).info.name == "mine"
    made = (path / "model.json").stat().st_mtime_ns
    assert catalog.resolve(str(tmp_path / "mine.nemo")) == path
    assert (path / "model.json").stat().st_mtime_ns == made


@pytest.mark.parametrize("name", ["nonsense", "", "/none/such.nemo", "../en-starter", "en-starter/../.."])
def test_an_unknown_name_lists_the_known_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModel, match=catalog.DEFAULT):
        catalog.resolve(name)

"""A bundle is what model.json says, to the last byte, or it is refused in one sentence."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nemostream.encoders.onnx import OnnxBackend
from nemostream.errors import BundleError
from nemostream.models.bundle import (
    MANIFEST,
    TOKENIZER,
    TOKENS,
    WEIGHTS,
    Bundle,
    describe_file,
    encoder_file,
    load_bundle,
)
from nemostream.models.convert import convert

INT8 = encoder_file("int8")


@pytest.fixture
def folder(toy_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(toy_bundle.path, tmp_path / "toy")
    return tmp_path / "toy"


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def relist(folder: Path, name: str) -> None:
    """Make model.json agree with a file that was changed."""
    listed = msgspec.to_builtins(describe_file(folder / name))
    edit(folder, lambda manifest: manifest["files"].update({name: listed}))


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message and message.endswith(".")
    return message


def test_a_bundle_says_what_it_is(toy_bundle: Bundle, folder: Path) -> None:
    info = toy_bundle.info
    assert (info.chunk_frames, info.default_chunk_frames, info.decoders) == ((1, 2, 7, 14), 7, ("rnnt", "ctc"))
    assert len(toy_bundle.tokens) == info.vocab_size == 128
    assert toy_bundle.hash == load_bundle(folder).hash
    assert not any(array.flags.writeable for array in toy_bundle.weights.values())


def test_a_bundle_may_hold_one_precision_only(folder: Path) -> None:
    (folder / encoder_file("fp32")).unlink()
    edit(folder, lambda manifest: (manifest["files"].pop(encoder_file("fp32")), manifest.update(precisions=["int8"])))
    bundle = load_bundle(folder)
    OnnxBackend(bundle, "int8", 1)
    with pytest.raises(BundleError, match="no fp32 encoder, only int8"):
        bundle.encoder("fp32")


def test_a_bundle_without_tokenizer_loads(folder: Path) -> None:
    assert load_bundle(folder).tokenizer == folder / TOKENIZER
    (folder / TOKENIZER).unlink()
    edit(folder, lambda manifest: manifest["files"].pop(TOKENIZER))
    assert load_bundle(folder).tokenizer is None


@pytest.mark.parametrize("name", [TOKENS, TOKENIZER, WEIGHTS, INT8])
def test_every_file_is_checked(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    assert f"{name} has {len(data) - 1} bytes instead of {len(data)}" in refusal(folder)
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert f"{name} does not match its sha256" in refusal(folder)
    (folder / name).unlink()
    assert f"{name} is missing" in refusal(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "..", ".", "", "a\\b", "-x", "link"])
def test_no_name_leaves_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    (folder / "link").symlink_to(secret)
    listed = msgspec.to_builtins(describe_file(secret))
    edit(folder, lambda manifest: manifest["files"].update({name: listed}))
    assert "lies outside the folder" in refusal(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"format_version": "x"},
        {"chunk_frames": []},
        {"chunk_frames": [1, 2, 7, 140]},
        {"chunk_frames": [0]},
        {"chunk_frames": 3},
        {"default_chunk_frames": 3},
        {"decoders": []},
        {"decoders": ["beam"]},
        {"default_decoder": "ctc", "decoders": ["rnnt"]},
        {"transducer": None},
        {"precisions": []},
        {"precisions": ["fp16"]},
        {"vocab_size": 127},
        {"vocab_size": -1},
        {"vocab_size": 10**30},
        {"files": {}},
        {"files": None},
        {"frame_samples": 1},
        {"mel": {}},
    ],
)
def test_a_description_that_cannot_be_true_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, lambda manifest: manifest.update(changes))
    assert MANIFEST in refusal(folder)


@pytest.mark.parametrize("field", ["d_model", "n_heads", "n_layers"])
def test_shapes_that_do_not_fit_are_refused_at_load(folder: Path, field: str) -> None:
    edit(folder, lambda manifest: manifest["encoder"].update({field: 3}))
    with pytest.raises(BundleError):
        OnnxBackend(load_bundle(folder), "int8", 1)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_manifest_is_refused(folder: Path, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    assert MANIFEST in refusal(folder)


def test_what_is_not_a_bundle_is_refused(tmp_path: Path) -> None:
    assert f"no readable {MANIFEST}" in refusal(tmp_path)
    assert f"no readable {MANIFEST}" in refusal(tmp_path / "none")


def rewrite_weights(folder: Path, change: Callable[[dict[str, Any]], Any], **options: Any) -> None:
    with np.load(folder / WEIGHTS) as arrays:
        content = dict(arrays)
    change(content)
    np.savez(folder / WEIGHTS, **content)
    relist(folder, WEIGHTS)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (np.zeros((3, 3), np.float32), "asks for float32 (128, 129)"),
        (np.zeros((128, 129)), "is float64"),
        (np.full((128, 129), np.nan, np.float32), "not finite"),
        (np.array([None] * 4, object), "cannot be read"),
    ],
)
def test_weights_of_another_shape_or_kind_are_refused(folder: Path, value: Any, word: str) -> None:
    rewrite_weights(folder, lambda content: content.update({"joint.out.weight": value}))
    assert word in refusal(folder)


def test_missing_truncated_and_inflated_weights_are_refused(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    rewrite_weights(folder, lambda content: content.pop("ctc.bias"))
    assert "ctc.bias" in refusal(folder)
    for kept in (0, 10, 1000, len(whole) // 2):
        (folder / WEIGHTS).write_bytes(whole[:kept])
        relist(folder, WEIGHTS)
        assert "cannot be read" in refusal(folder)
    with zipfile.ZipFile(folder / WEIGHTS, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mel.window.npy", bytes(10_000_000))
    relist(folder, WEIGHTS)
    assert "compressed" in refusal(folder)


def test_a_graph_that_cannot_be_loaded_is_refused(folder: Path) -> None:
    data = (folder / INT8).read_bytes()
    for damaged in (b"", data[:1000], data[: len(data) // 2], b"x" * 1000):
        (folder / INT8).write_bytes(damaged)
        relist(folder, INT8)
        with pytest.raises(BundleError, match=INT8) as caught:
            OnnxBackend(load_bundle(folder), "int8", 1)
        assert "\n" not in str(caught.value)


def test_convert_replaces_nothing_and_leaves_nothing_behind(
    toy_nemo: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(BundleError, match="exists already"):
        convert(toy_nemo, folder)
    with pytest.raises(BundleError, match="cannot make precisions fp16"):
        convert(toy_nemo, tmp_path / "new", precisions=("fp16",))  # type: ignore[arg-type]

    def fail(path: Path) -> Bundle:
        raise BundleError("a fault at the last moment")

    monkeypatch.setattr("nemostream.models.convert.load_bundle", fail)
    with pytest.raises(BundleError, match="last moment"):
        convert(toy_nemo, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == before

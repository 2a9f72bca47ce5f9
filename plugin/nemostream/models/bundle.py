"""A bundle: the folder that a runtime loads, made by convert.py and checked here down to the last byte.

bundle = load_bundle("bundles/toy")
bundle.info.chunk_frames, bundle.tokens[0], bundle.weights["joint.out.weight"], bundle.encoder("int8")

model.json            info.ModelInfo: shapes, chunk sizes, size and sha256 of every other file
tokens.json           the sentencepiece pieces; the blank is the id behind the last
tokenizer.model       the sentencepiece model itself, for keyterms; a bundle may lack it
weights.npz           mel filters and window, decoder and joint weights (info.ModelInfo.weight_shapes)
encoder.<precision>.onnx  the streaming step (step.py)
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from nemostream.encoders import Floats
from nemostream.errors import BundleError
from nemostream.models.info import FileInfo, ModelInfo

MANIFEST, TOKENS, WEIGHTS, TOKENIZER = "model.json", "tokens.json", "weights.npz", "tokenizer.model"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MANIFEST_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle. `hash`: 16 hex digits that name its whole content; arrays are read-only."""

    path: Path
    info: ModelInfo
    tokens: tuple[str, ...]
    weights: Mapping[str, Floats]
    hash: str

    @property
    def tokenizer(self) -> Path | None:
        """The sentencepiece model that makes pieces of text, if the bundle has one."""
        return self.path / TOKENIZER if TOKENIZER in self.info.files else None

    def encoder(self, precision: str) -> Path:
        """The encoder graph of that precision.

        Raises:
            BundleError: the bundle does not hold it.
        """
        if precision not in self.info.precisions:
            raise BundleError(
                f"{self.path}: no {precision} encoder, only {', '.join(self.info.precisions)}; convert "
                f"the model again with precision {precision}."
            )
        return self.path / encoder_file(precision)


def encoder_file(precision: str) -> str:
    return f"encoder.{precision}.onnx"


def describe_file(path: Path) -> FileInfo:
    """Size and hash of a file, as model.json lists it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return FileInfo(sha256=digest.hexdigest(), bytes=path.stat().st_size)


def load_bundle(path: str | Path) -> Bundle:
    """Read and verify the bundle at `path`.

    Raises:
        BundleError: no such folder; a file is missing, of another size or content than model.json lists; a shape does
            not fit; a name leads out of the folder; another format version.
    """
    path = Path(path)
    manifest = _manifest(path)
    info = _info(manifest, path)
    for name, expected in info.files.items():
        _verify_file(path, name, expected)
    return Bundle(path, info, _tokens(path, info), _weights(path, info), hashlib.sha256(manifest).hexdigest()[:16])


def read_info(path: Path) -> ModelInfo:
    """What the bundle at `path` says of itself; its other files are not looked at.

    Raises:
        BundleError: no such folder, or its description cannot be true.
    """
    return _info(_manifest(path), path)


def _manifest(path: Path) -> bytes:
    try:
        with (path / MANIFEST).open("rb") as file:
            return file.read(_MANIFEST_LIMIT)
    except OSError as error:
        raise BundleError(
            f"{path}: no readable {MANIFEST} ({error.strerror}); give a bundle folder, or make one with "
            "nemostream convert."
        ) from error


def _info(manifest: bytes, path: Path) -> ModelInfo:
    try:
        info = msgspec.json.decode(manifest, type=ModelInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {MANIFEST} is not valid ({error}); convert the model again.") from error
    wrong = info.contradictions()
    if wrong:
        raise BundleError(f"{path}: {MANIFEST}: {wrong}; convert the model again with this version.")
    for name in (TOKENS, WEIGHTS, *map(encoder_file, info.precisions)):
        if name not in info.files:
            raise BundleError(f"{path}: {MANIFEST} lists no {name} under files; convert the model again.")
    return info


def _verify_file(path: Path, name: str, expected: FileInfo) -> None:
    file = path / name
    if not _PLAIN_NAME.fullmatch(name) or file.resolve().parent != path.resolve():
        raise BundleError(f"{path}: {MANIFEST} lists {name!r}, which lies outside the folder; do not use this bundle.")
    if not file.is_file():
        raise BundleError(f"{path}: {name} is missing; copy the whole folder, or convert the model again.")
    size = file.stat().st_size
    if size != expected.bytes:
        raise BundleError(
            f"{path}: {name} has {size} bytes instead of {expected.bytes}, it was cut or altered; copy it again."
        )
    if describe_file(file).sha256 != expected.sha256:
        raise BundleError(f"{path}: {name} does not match its sha256 in {MANIFEST}, it was altered; copy it again.")


def _tokens(path: Path, info: ModelInfo) -> tuple[str, ...]:
    try:
        tokens = msgspec.json.decode((path / TOKENS).read_bytes(), type=tuple[str, ...])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {TOKENS} is not a list of pieces ({error}); convert the model again.") from error
    if len(tokens) != info.vocab_size:
        raise BundleError(
            f"{path}: {TOKENS} holds {len(tokens)} pieces, {MANIFEST} says {info.vocab_size}; convert the model again."
        )
    return tokens


def _weights(path: Path, info: ModelInfo) -> dict[str, Floats]:
    wanted = info.weight_shapes
    weights: dict[str, Floats] = {}
    try:
        with zipfile.ZipFile(path / WEIGHTS) as archive:
            # Only stored members: what is unpacked can never be larger than the file, whose size was checked.
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("a member is compressed")
        with np.load(path / WEIGHTS, allow_pickle=False) as arrays:
            for name in wanted:
                weights[name] = arrays[name]
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError, MemoryError) as error:
        raise BundleError(f"{path}: {WEIGHTS} cannot be read ({error}); convert the model again.") from error
    for name, shape in wanted.items():
        array = weights[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise BundleError(
                f"{path}: {name} in {WEIGHTS} is {array.dtype} {array.shape}, {MANIFEST} asks for "
                f"float32 {shape}; convert the model again."
            )
        if not np.isfinite(array).all():
            raise BundleError(f"{path}: {name} in {WEIGHTS} holds values that are not finite; convert the model again.")
        array.setflags(write=False)
    return weights

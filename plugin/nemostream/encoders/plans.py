"""TensorRT's plans on disk: each is built once for a model, a chunk size, a precision, a GPU and a version.

    plans = Plans(catalog.cache() / "tensorrt", find())
    plan = plans.get(bundle, Wanted(frames=2, columns=62, precision="bf16", most=256), say)

What a plan was made of is in its name as a hash, so one that is stale is never found; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemostream.encoders import trt
from nemostream.encoders.resident import DTYPES
from nemostream.encoders.trt import Api, ranges
from nemostream.errors import DeviceError
from nemostream.models import conformer, export, restore, step
from nemostream.models.bundle import encoder_file
from nemostream.models.export import Sizes, export_step
from nemostream.models.initializers import encoder_weights, precision_of
from nemostream.models.restore import make_step

if TYPE_CHECKING:
    from nemostream.models.bundle import Bundle

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """`frames` of a chunk and `columns` of a ring, in `precision`, for batches of up to `most` rows."""

    frames: int
    columns: int
    precision: str
    most: int


class Plans:
    """Those of one GPU."""

    def __init__(self, folder: Path, api: Api) -> None:
        self._folder, self._api = folder, api

    def get(self, bundle: Bundle, wanted: Wanted, say: Callable[[str], None]) -> bytes:
        """The plan; built first where it is missing or was damaged, which takes minutes for a large model.

        Args:
            say: is told what is being done, in words.

        Raises:
            DeviceError: it cannot be built or written.
            BundleError: the bundle's weights cannot be read.
        """
        path = self.path(bundle, wanted)
        return _read(path) or self._build(bundle, wanted, path, say)

    def discard(self, bundle: Bundle, wanted: Wanted) -> None:
        """It does not run: the next `get` builds it anew."""
        self.path(bundle, wanted).unlink(missing_ok=True)

    def path(self, bundle: Bundle, wanted: Wanted) -> Path:
        """Where that plan is, or would be."""
        info = bundle.info
        made_of = {
            "encoder": info.files[encoder_file(precision_of(info))].sha256,
            "code": _code(),
            "by": self._api.identity,
            **asdict(wanted),
        }
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
        chunk_ms = wanted.frames * info.frame_samples // 16
        return self._folder / f"{info.name.replace('/', '--')}-{chunk_ms}ms-{wanted.precision}-{digest}.plan"

    def _build(self, bundle: Bundle, wanted: Wanted, path: Path, say: Callable[[str], None]) -> bytes:
        info, chunk_ms = bundle.info, wanted.frames * bundle.info.frame_samples // 16
        timing = self._folder / f"timing-{hashlib.sha256(self._api.identity.encode()).hexdigest()[:16]}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
                say(f"{info.name}, {chunk_ms} ms: exporting")
                module = make_step(info, encoder_weights(bundle), str(bundle.path)).reduce(DTYPES[wanted.precision])
                graph = Path(scratch) / "step.onnx"
                export_step(module, info.encoder, info.mel, graph, Sizes(wanted.frames, wanted.columns))
                del module  # a large one and its plan do not fit into memory together everywhere
                learnt = timing.read_bytes() if timing.exists() else b""
                plan, learnt = self._api.build(
                    graph, ranges(wanted.most), learnt, lambda far: say(f"{info.name}, {chunk_ms} ms: building, {far}")
                )
            _write(path, hashlib.sha256(plan).digest() + plan)
            if learnt:
                _write(timing, learnt)
        except OSError as error:
            raise DeviceError(f"{path}: the plan cannot be kept ({error.strerror}); free space there") from error
        return plan


def _read(path: Path) -> bytes | None:
    """None if it is not there, or not as it was written."""
    try:
        content = path.read_bytes()
    except OSError:  # where nothing can be written either, that is said when the plan is to be kept
        return None
    digest, plan = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return plan if hashlib.sha256(plan).digest() == digest else None


def _write(path: Path, content: bytes) -> None:
    """In one piece: another process may be reading."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # gone whatever happens
        part = Path(scratch) / path.name
        part.write_bytes(content)
        os.replace(part, path)


def _code() -> str:
    """Of the modules that make the graph and the plan."""
    sources = [Path(str(module.__file__)).read_bytes() for module in (step, conformer, export, restore, trt)]
    return hashlib.sha256(b"".join(sources)).hexdigest()

"""Models by name: the one that ships, bundle folders, and .nemo files that are converted on first use.

resolve(None)                # the embedded default
resolve("bundles/toy")       # a bundle folder, as it is
resolve("model.nemo")        # converted once, kept under XDG_CACHE_HOME/nemostream
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from nemostream.errors import BundleError, UnknownModel
from nemostream.models.info import FORMAT_VERSION

DEFAULT = "en-starter"
_ASSETS = Path(__file__).resolve().parent.parent / "assets"


def names() -> tuple[str, ...]:
    """Names that `resolve` knows without a path."""
    if not _ASSETS.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in _ASSETS.iterdir() if (folder / "model.json").is_file()))


def resolve(name_or_path: str | Path | None) -> Path:
    """The bundle folder of a model.

    Args:
        name_or_path: one of names(), a bundle folder, or a .nemo file; None for the default. A name wins over a folder
            of the same name in the working directory: "./name" means the folder.

    Raises:
        UnknownModel: none of these.
        CheckpointError: the .nemo cannot be converted.
        BundleError: the cache cannot be written.
    """
    wanted = DEFAULT if name_or_path is None else name_or_path
    if isinstance(wanted, str) and wanted in names():
        return _ASSETS / wanted
    path = Path(wanted).expanduser()
    if str(wanted) and path.is_dir():
        return path
    if path.is_file() and path.suffix == ".nemo":
        return _converted(path)
    raise UnknownModel(
        f"no model {str(wanted)!r}: it is neither one of ({', '.join(names())}) nor a bundle folder nor a .nemo file."
    )


def _converted(path: Path) -> Path:
    from nemostream.models.convert import convert

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    folder = _cache() / "bundles" / f"{path.stem}-{digest.hexdigest()[:16]}-v{FORMAT_VERSION}"
    if not folder.is_dir():
        try:
            convert(path, folder, name=path.stem)
        except BundleError:
            if not folder.is_dir():  # else another process converted it meanwhile
                raise
    return folder


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "nemostream"

"""Models by name: the one that ships, those of the hub, folders, and .nemo files, converted on first use.

resolve(None)                # the embedded default
resolve("nvidia/parakeet_realtime_eou_120m-v1")  # one that was downloaded; `download` does that
resolve("bundles/toy")       # a folder, as it is: a bundle, or one of sherpa-onnx (sherpa.py)
resolve("model.nemo")        # converted once, kept under XDG_CACHE_HOME/nemostream
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from nemostream.errors import BundleError, UnknownModel
from nemostream.models import hub
from nemostream.models.info import FORMAT_VERSION
from nemostream.models.known import KNOWN

DEFAULT = "en-starter"
_ASSETS = Path(__file__).resolve().parent.parent / "assets"


def names() -> tuple[str, ...]:
    """Names that `resolve` knows without a path."""
    if not _ASSETS.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in _ASSETS.iterdir() if (folder / "model.json").is_file()))


def resolve(name_or_path: str | Path | None) -> Path:
    """The folder of a model, a bundle or one of sherpa-onnx.

    Args:
        name_or_path: one of names(), a repository of the hub that was downloaded, a folder, or a .nemo file; None for
            the default. A name wins over a folder of the same name in the working directory: "./name" means the folder.

    Raises:
        UnknownModel: none of these.
        CheckpointError: the .nemo cannot be converted.
        BundleError: the cache cannot be written.
    """
    wanted = DEFAULT if name_or_path is None else name_or_path
    if isinstance(wanted, str) and wanted in names():
        return _ASSETS / wanted
    if isinstance(wanted, str) and (folder := hub.find(wanted, _cache())) is not None:
        return folder
    path = Path(wanted).expanduser()
    if str(wanted) and path.is_dir():
        return path
    if path.is_file() and path.suffix == ".nemo":
        return _converted(path)
    if isinstance(wanted, str) and hub.is_name(wanted):
        raise UnknownModel(f"the model {wanted} is not on this machine; run: nemostream download {wanted}")
    raise UnknownModel(
        f"no model {str(wanted)!r}: it is neither one of ({', '.join(names())}) nor a bundle folder nor a .nemo file."
    )


def download(name: str, revision: str | None = None, progress: hub.Progress = lambda line: None) -> Path:
    """Fetch a model from the hub, and convert it; its bundle folder. `resolve` finds it from then on.

    Raises:
        UnknownModel: that is no name of a repository.
        DownloadError, CheckpointError, BundleError: see hub.fetch.
    """
    if name in names():
        return _ASSETS / name  # it is here
    if not hub.is_name(name):
        raise UnknownModel(f"{name!r} is no repository of the hub; those are named owner/name, as {next(iter(KNOWN))}")

    def convert(path: Path, stem: str, languages: tuple[str, ...]) -> Path:
        return _converted(path, stem, languages, progress)

    return hub.fetch(name, _cache(), convert, revision, progress)


def _converted(
    path: Path, name: str | None = None, languages: tuple[str, ...] = ("en",), progress: hub.Progress | None = None
) -> Path:
    from nemostream.models.convert import Settings, convert

    name = name or path.stem
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    folder = _cache() / "bundles" / f"{name}-{digest.hexdigest()[:16]}-v{FORMAT_VERSION}"
    if not folder.is_dir():
        try:
            convert(path, folder, name=name, settings=Settings(languages), progress=progress)
        except BundleError:
            if not folder.is_dir():  # else another process converted it meanwhile
                raise
    return folder


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "nemostream"

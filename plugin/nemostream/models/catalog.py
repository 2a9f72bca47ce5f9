"""Models by name: the one that ships, those of the hub, folders, and .nemo files, converted on first use.

resolve(None)                # the embedded default
resolve("nvidia/parakeet_realtime_eou_120m-v1")  # one that was downloaded; `download` does that
resolve("bundles/toy")       # a folder, as it is: a bundle, or one of sherpa-onnx (sherpa.py)
resolve("model.nemo")        # converted once, kept under XDG_CACHE_HOME/nemostream
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemostream.errors import BundleError, UnknownModel
from nemostream.models import hub
from nemostream.models.known import KNOWN

DEFAULT = "en-starter"
_ASSETS = Path(__file__).resolve().parent.parent / "assets"


def names() -> tuple[str, ...]:
    """Names that `resolve` knows without a path."""
    if not _ASSETS.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in _ASSETS.iterdir() if (folder / "model.json").is_file()))


def downloaded() -> tuple[str, ...]:
    """Repositories of the hub that `resolve` knows because they were downloaded."""
    return hub.downloaded(cache())


def named(name: str) -> Path | None:
    """The bundle folder of a model that is known by its name: one that ships, or one that was downloaded."""
    return _ASSETS / name if name in names() else hub.find(name, cache())


def resolve(name_or_path: str | Path | None) -> Path:
    """The folder of a model, a bundle or one of sherpa-onnx.

    Args:
        name_or_path: one of names() or downloaded(), a folder, or a .nemo file; None for the default. A name wins
            over a folder of the same name in the working directory: "./name" means the folder.

    Raises:
        UnknownModel: none of these.
        CheckpointError: the .nemo cannot be converted.
        BundleError: the cache cannot be written.
    """
    wanted = DEFAULT if name_or_path is None else name_or_path
    if isinstance(wanted, str) and (folder := named(wanted)) is not None:
        return folder
    path = Path(wanted).expanduser()
    if str(wanted) and path.is_dir():
        return path
    if path.is_file() and path.suffix == ".nemo":
        return _converted(path, hub.sha256(path), path.stem)
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

    def convert(path: Path, sha256: str, stem: str, languages: tuple[str, ...]) -> Path:
        return _converted(path, sha256, stem, languages, progress)

    return hub.fetch(name, cache(), convert, revision, progress)


def _converted(
    path: Path,
    sha256: str,
    name: str,
    languages: tuple[str, ...] = (),
    progress: hub.Progress = lambda line: None,
) -> Path:
    """The bundle of a checkpoint, which is made by one process while the others wait for it."""
    from nemostream.models.convert import Settings, convert

    folder = cache() / "bundles" / hub.bundle_name(name, sha256)
    if not folder.is_dir():
        with _alone(folder, progress):
            if not folder.is_dir():
                convert(path, folder, name=name, settings=Settings(languages), progress=progress)
    return folder


@contextmanager
def _alone(folder: Path, progress: hub.Progress) -> Iterator[None]:
    """No other process makes `folder` meanwhile. What one that was killed has left of it is removed."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as error:
        raise BundleError(f"{folder.parent}: cannot be written ({error.strerror}); set XDG_CACHE_HOME") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that converts it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.parent.iterdir():
            if left.is_dir() and left.name.startswith(f".{folder.name}."):
                shutil.rmtree(left, ignore_errors=True)
        yield


def cache() -> Path:
    """The folder of what can be made again: XDG_CACHE_HOME/nemostream."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "nemostream"

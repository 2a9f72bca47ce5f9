"""The Dockerfiles: what they copy, start and check is there and does what they say. No daemon is needed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.containers.files import DOCKERFILES, ROOT, Dockerfile, context, environment, here
from tests.gateway.process import GatewayProcess

PORT = "NEMOSTREAM_PORT"
each = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda d: d.path.name)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built as the image does, of nothing but what the builder gets."""
    source = tmp_path_factory.mktemp("source")
    for file in context():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, source / file)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=source, check=True)
    (built,) = source.glob("dist/*.whl")
    return zipfile.ZipFile(built)


def check(dockerfile: Dockerfile, port: str) -> int:
    """The exit status of its health check."""
    command = here(dockerfile.healthcheck)
    return subprocess.run(command, env=environment(**{PORT: port}), stderr=subprocess.DEVNULL).returncode


@each
def test_the_linter_has_nothing_to_say(dockerfile: Dockerfile) -> None:
    done = subprocess.run(["hadolint", str(dockerfile.path)], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@each
def test_base_images_are_pinned(dockerfile: Dockerfile) -> None:
    images = set(dockerfile.bases) - dockerfile.stages
    assert images
    for image in images:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", image), image


@each
def test_the_builder_gets_what_is_copied_and_nothing_else(dockerfile: Dockerfile) -> None:
    given = {file for source in dockerfile.copied for file in context() if Path(file).is_relative_to(source)}
    assert given == set(context())
    for source in dockerfile.copied:
        assert any(Path(file).is_relative_to(source) for file in given), source


@each
def test_it_runs_as_a_user_that_is_not_root_and_owns_the_socket_s_folder(dockerfile: Dockerfile) -> None:
    assert dockerfile.only("USER") == "10001:10001"
    folder = str(Path(dockerfile.environment["NEMOSTREAM_SOCKET"]).parent)
    (made,) = [value for name, value in dockerfile.last if name == "RUN"]
    assert {"-m", "0700", "-o", "10001", "-g", folder, dockerfile.environment["XDG_CACHE_HOME"]} <= set(made.split())


@each
def test_variables_of_the_image_are_known_to_our_code(dockerfile: Dockerfile) -> None:
    code = "".join(file.read_text() for top in ("plugin", "agent") for file in (ROOT / top).rglob("*.py"))
    for name in set(dockerfile.environment) - {"PYTHONUNBUFFERED", "ORT_DISABLE_TELEMETRY"}:  # Python's, onnxruntime's
        assert f'"{name}"' in code, name


@each
def test_the_health_check_succeeds_once_the_gateway_is_ready(dockerfile: Dockerfile, running: GatewayProcess) -> None:
    assert dockerfile.command == ["python", "-m", "nemostream_agent", "gateway"]
    assert running.http.startswith("http://0.0.0.0:")  # a published port reaches it
    assert check(dockerfile, running.http.rpartition(":")[2]) == 0


@each
def test_the_health_check_fails_where_nobody_listens(dockerfile: Dockerfile) -> None:
    assert check(dockerfile, "1") == 1


def test_the_health_check_fails_while_there_is_no_model() -> None:
    with GatewayProcess("--model", "none/such", ready=False) as gateway:
        for dockerfile in DOCKERFILES:
            assert check(dockerfile, gateway.http.rpartition(":")[2]) == 1


def test_the_image_s_wheel_holds_our_packages(wheel: zipfile.ZipFile) -> None:
    tracked = [file for file in context() if file.split("/")[0] in ("plugin", "agent")]
    assert len(tracked) > 100
    assert {file.partition("/")[2] for file in tracked} <= set(wheel.namelist())


@each
def test_the_layer_of_dependencies_holds_what_the_wheel_asks_for(
    dockerfile: Dockerfile, wheel: zipfile.ZipFile
) -> None:
    """The wheel is installed over it with --no-deps."""
    (line,) = [value for name, value in dockerfile.instructions if name == "RUN" and "requirements.py" in value]
    command = shlex.split(line.partition(">")[0])
    command = [sys.executable, *(f"containers/{part}" if part.endswith(".py") else part for part in command[1:])]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    (metadata,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    asked = [r.split("; ") for r in message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist", [])]
    wanted = {r[0] for r in asked if len(r) == 1 or r[1].endswith("extra == 'agent'")}
    onnxruntime = "onnxruntime-gpu" if dockerfile.path.suffix == ".cuda" else "onnxruntime"
    assert any(line.startswith(f"{onnxruntime}>") for line in printed)
    assert {line.split(";")[0].replace("-gpu", "") for line in printed} == wanted

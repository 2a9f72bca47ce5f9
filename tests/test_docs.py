"""Every command in the documentation runs as it is written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from nemostream.__main__ import app
from nemostream.models.bundle import Bundle
from nemostream.models.known import KNOWN
from nemostream.probe import probe
from nemostream.rendezvous import Place
from nemostream_agent.agent_process import AgentProcess
from nemostream_agent.gateway.cli import app as gateway
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.stream_client import app as client
from tests.clips import path
from tests.gateway.process import GatewayProcess
from tests.hub import TOY, Hub, Repo, keep_converted
from tests.serving import new_place

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {
    "make demo": "tests/rooms/test_demo.py",
    "make test": "what runs this test",
    "pip install livekit-plugins-nemo": "tests/test_wheel.py",
    "pip install 'livekit-plugins-nemo[convert]'": "tests/test_wheel.py",
}
AGENT = re.compile(r"python -m nemostream_agent (\S+) dev")
SERVE = re.compile(r"nemostream serve\b.*")
DOCKER = re.compile(r"docker .*")  # tests/containers/test_docs.py
GATEWAY = re.compile(r"(?:[A-Z_]+=\S+ )*python -m nemostream_agent gateway\b.*")
SERVED = "127.0.0.1:8000"
"""In commands to a gateway that runs."""
REPOSITORY = re.compile(r"\b(?:nvidia|your-org)/[\w.-]+")


def blocks(language: str) -> list[tuple[str, str]]:
    """The code blocks of all pages, each with its page."""
    found = []
    for page in PAGES:
        found += [(page.name, b) for b in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)]
    return found


def commands() -> list[tuple[str, str]]:
    found = []
    for page, block in blocks("bash"):
        joined = block.replace("\\\n", " ")
        found += [(page, line.split("  #")[0].strip()) for line in joined.splitlines() if line.strip()]
    return found


def plain() -> list[tuple[str, str]]:
    other = AGENT, SERVE, GATEWAY, DOCKER
    found = [(p, c) for p, c in commands() if c not in ELSEWHERE and "train" not in c]
    return [(p, c) for p, c in found if not any(kind.fullmatch(c) for kind in other)]


def services() -> list[tuple[str, str]]:
    """Commands that serve, in bash and in a composed container."""
    composed = [(p, s["command"]) for p, block in blocks("yaml") for s in yaml.safe_load(block)["services"].values()]
    return [(p, c) for p, c in [*commands(), *composed] if SERVE.fullmatch(c)]


def environment(place: Place | None = None) -> dict[str, str]:
    found = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if place is not None:
        found |= {"NEMOSTREAM_SOCKET": str(place.socket), "NEMOSTREAM_IDLE_EXIT": "2"}
    return found


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """Every repository that a command names. What is not NVIDIA's is private."""
    with Hub() as running:
        for name in {name for _, command in commands() for name in REPOSITORY.findall(command)}:
            token = "" if name.startswith("nvidia/") else "hf_yours"
            running.repos[name] = Repo(
                {"model.nemo": TOY}, branches=("nemotron-speech-streaming-jan2026",), token=token
            )
        yield running


def with_hub(own: dict[str, str], hub: Hub, home: Path, bundle: Bundle) -> dict[str, str]:
    """The environment `own`, where models come from the look-alike and need no conversion."""
    keep_converted(home, bundle, *{name.partition("/")[2] for name in hub.repos})
    places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "XDG_CACHE_HOME": str(home / "cache")}
    return {name: value for name, value in own.items() if not name.startswith("HF_")} | places


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """Host and port of a gateway."""
    with GatewayProcess() as running:
        yield running.http.removeprefix("http://")


@pytest.mark.parametrize(("page", "command"), plain(), ids=[f"{p}: {c}" for p, c in plain()])
def test_command_runs(
    page: str, command: str, tmp_path: Path, hub: Hub, toy_bundle: Bundle, request: pytest.FixtureRequest
) -> None:
    """README's commands run in the checkout, those of the other pages in a folder with a clip and a model."""
    cwd = ROOT if page == "README.md" else tmp_path
    if cwd == tmp_path:
        (tmp_path / "speech.wav").write_bytes(path("music").read_bytes())
        shutil.copy(ROOT / "tests" / "data" / "toy.nemo", tmp_path / "model.nemo")
        if "bundles/model" in command and "convert" not in command:
            subprocess.run(
                ["nemostream", "convert", "model.nemo", "bundles/model"], cwd=cwd, env=environment(), check=True
            )
    if SERVED in command:
        command = command.replace(SERVED, request.getfixturevalue("served"))
    with new_place() as place:
        own = environment(place)
        if "calibrate" in command:  # what is measured beside other tests is not to be kept
            own["XDG_CACHE_HOME"] = str(tmp_path)
        if names := REPOSITORY.findall(command):
            own = with_hub(own, hub, tmp_path, toy_bundle)
            if "--model" in command:
                subprocess.run(["nemostream", "download", *names], env=own, check=True)
        done = subprocess.run(["bash", "-c", command], cwd=cwd, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if command.endswith("download-files"):  # LiveKit's, which logs
        assert "finished downloading files for livekit.plugins.nemo" in done.stderr
    else:
        assert done.stdout.strip() or command.startswith(("export", "nemostream transcribe --model"))


@pytest.mark.parametrize("program", sorted({m[1] for _, c in commands() if (m := AGENT.fullmatch(c))}))
async def test_agent_registers_with_a_server(program: str, server: LiveKitServer) -> None:
    with new_place() as place:
        async with AgentProcess(server, program, environment=environment(place)) as agent:
            assert "registered worker" in agent.log


@pytest.mark.parametrize(("page", "command"), services(), ids=[f"{p}: {c}" for p, c in services()])
def test_service_serves_until_sigterm(page: str, command: str) -> None:
    with new_place() as place:
        process = subprocess.Popen(shlex.split(f"{Path(sys.executable).parent}/{command}"), env=environment(place))
        try:
            deadline = time.monotonic() + 30
            while probe(place) is None:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert not place.socket.exists()
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("command", sorted({c for _, c in commands() if GATEWAY.fullmatch(c)}))
def test_gateway_serves_until_sigterm(command: str, tmp_path: Path) -> None:
    """At any free port, whatever the page says."""
    (tmp_path / "keys.txt").write_text(f"anna:{'0' * 64}\n")
    with new_place() as place:
        own = environment(place)
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {command} --port 0"], cwd=tmp_path, env=own, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            port = process.stdout.readline().rpartition(":")[2].strip()
            deadline = time.monotonic() + 60
            while True:
                assert process.poll() is None and time.monotonic() < deadline
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10):
                    break
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("unit", [b for _, b in blocks("ini")])
def test_systemd_takes_the_unit(unit: str, tmp_path: Path) -> None:
    """Its command is one that the page shows, and exists where the package is installed."""
    command = re.findall(r"^ExecStart=%h/venv/bin/(.*)$", unit, re.M)
    assert command and command[0] in [c for _, c in commands()]
    file = tmp_path / "nemostream.service"
    file.write_text(unit.replace("%h/venv", sys.prefix))
    if verify := shutil.which("systemd-analyze"):
        done = subprocess.run([verify, "verify", str(file)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("composed", [b for _, b in blocks("yaml")])
def test_composed_services_share_the_socket(composed: str) -> None:
    """One volume at the socket's folder, one user; the engine's check of its health is the documented look at it."""
    file: dict[str, Any] = yaml.safe_load(composed)
    sockets = {s["environment"]["NEMOSTREAM_SOCKET"] for s in file["services"].values()}
    assert len(sockets) == 1 and len({s["user"] for s in file["services"].values()}) == 1
    folder = str(Path(sockets.pop()).parent)
    for service in file["services"].values():
        mounts = dict(reversed(volume.split(":")) for volume in service["volumes"])
        assert mounts[folder] == "socket" and set(mounts.values()) <= set(file["volumes"])
    kind, *check = file["services"]["engine"]["healthcheck"]["test"]
    assert kind == "CMD"
    # There is no engine, and the check says so.
    with new_place() as place:
        assert subprocess.run(check, env=environment(place)).returncode == 1


def options(command: str) -> set[str]:
    """The options of a command of ours that are not hidden."""
    parameters = get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {o for p in parameters for o in p.opts if o.startswith("--") and not getattr(p, "hidden", False)}


@pytest.mark.parametrize(("page", "command"), [("sharing.md", "serve"), ("command-line.md", "transcribe")])
def test_the_table_of_options_is_complete(page: str, command: str) -> None:
    rows = re.findall(r"^\| (`--[^|]*) \|", (ROOT / "docs" / page).read_text(), re.M)
    assert set(re.findall(r"--[a-z-]+", " ".join(rows))) == options(command)


def test_the_table_of_the_gateways_options_is_complete_with_the_names_in_the_environment() -> None:
    page = (ROOT / "docs" / "gateway.md").read_text()
    rows = re.findall(r"^\| `(--[a-z-]+)` \| (.*?)\| ", page, re.M)
    told = {option: set(re.findall(r"`([A-Z_]+)`", names)) for option, names in rows}
    found: dict[str, set[str]] = {}
    for parameter in get_command(gateway).params:
        names = {parameter.envvar} if isinstance(parameter.envvar, str) else set(parameter.envvar or ())
        if getattr(parameter, "hidden", False):
            assert all(name in page for name in names), "an option that only the environment has"
        elif parameter.name != "help":
            found[parameter.opts[0]] = names
    assert told == found


def test_the_table_of_the_clients_options_is_complete() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)` \|", (ROOT / "docs" / "client.md").read_text(), re.M)
    assert set(rows) == {p.opts[0] for p in get_command(client).params if p.opts[0].startswith("--")} - {"--help"}


def test_the_table_of_models_is_what_is_known_of_them() -> None:
    rows = re.findall(
        r"^\| `nemostream download (\S+)` \| .* \| (.*) \|$", (ROOT / "docs" / "models.md").read_text(), re.M
    )
    assert dict(rows) == {name: known.licence for name, known in KNOWN.items()}


def test_every_file_of_the_engine_and_the_gateway_has_its_line_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    engine, gateway = ROOT / "plugin" / "nemostream", ROOT / "agent" / "nemostream_agent" / "gateway"
    folders = engine, engine / "encoders", gateway
    files = {file.name for folder in folders for file in folder.glob("*.py")} - {"__init__.py"}
    named = set(re.findall(r"`(\w+\.py)`", "\n".join(row for row in text.splitlines() if row.startswith("| `"))))
    assert files <= named, files - named


def test_every_page_is_reachable_from_the_readme() -> None:
    readme = PAGES[0].read_text()
    for page in PAGES[1:]:
        assert f"docs/{page.name}" in readme, page.name
    for link in re.findall(r"\]\((?!http)([^)#]+)", readme):
        assert (ROOT / link).exists(), link

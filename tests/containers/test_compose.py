"""The compose file: valid, without secrets, and made of commands and names that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from nemostream.__main__ import app
from nemostream_agent.__main__ import AGENTS, PROGRAMS
from nemostream_agent.livekit_server import PACKAGE
from tests.containers.files import COMPOSE, DOCKERFILES, FOLDER, ROOT, composed, environment, ours
from tests.gateway.process import GatewayProcess
from tests.serving import new_place

CLIENTS = sorted(set(ours()) - {"engine"})
VARIABLE = re.compile(r"\$\{(\w+)(:[^}]*)?\}")


def documented_engine() -> dict[str, Any]:
    """The engine as docs/sharing.md composes it."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "sharing.md").read_text(), re.M | re.S)
    found: dict[str, Any] = yaml.safe_load(block)
    return found


def test_it_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_secrets_have_no_value_in_the_file() -> None:
    """Whoever composes must give them; only what may be empty has a default."""
    for default in re.findall(r"\$\{\w*(?:SECRET|API_KEY|TOKEN)(?:S)?(:[^}]*)?\}", COMPOSE.read_text()):
        assert default in (":?", ":-")
    for service in composed()["services"].values():
        for name, value in service["environment"].items():
            if re.search("SECRET|KEY|TOKEN", name):
                assert not VARIABLE.sub("", value).strip(" :"), name


def test_variables_are_known_to_our_code() -> None:
    code = "".join(file.read_text() for top in ("plugin", "agent") for file in (ROOT / top).rglob("*.py"))
    for service in ours().values():
        for name in set(service["environment"]) - {"LIVEKIT_URL"}:  # LiveKit's own
            assert f'"{name}"' in code, name


def test_our_services_share_image_user_and_socket() -> None:
    (cpu, *_) = DOCKERFILES
    at = cpu.environment["NEMOSTREAM_SOCKET"]
    for service in ours().values():
        assert service["user"] == cpu.only("USER")
        assert service["environment"]["NEMOSTREAM_SOCKET"] == at
        assert f"socket:{Path(at).parent}" in service["volumes"]
        assert service["read_only"] and service["init"] and service["cap_drop"] == ["ALL"]
    assert composed()["volumes"]["socket"]["driver_opts"]["o"] == "uid=10001,gid=10001,mode=0700"


def test_the_image_is_built_by_one_service_of_a_file_that_exists() -> None:
    (build,) = [service["build"] for service in ours().values() if "build" in service]
    assert (FOLDER / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DOCKERFILES[0].path


@pytest.mark.parametrize("name", CLIENTS)
def test_clients_wait_for_the_engine_and_start_none(name: str) -> None:
    service = ours()[name]
    assert service["environment"]["NEMOSTREAM_SPAWN"] == "0"
    assert service["depends_on"]["engine"] == {"condition": "service_healthy"}


def test_what_is_waited_for_has_a_health_check() -> None:
    services = composed()["services"]
    for service in services.values():
        for name in service.get("depends_on", {}):
            assert services[name]["healthcheck"]["test"][0] == "CMD"


def test_commands_are_ours() -> None:
    commands = {name: shlex.split(service["command"]) for name, service in ours().items()}
    program, verb, *options = commands.pop("engine")
    assert program == "nemostream"
    get_command(app).commands[verb].make_context(verb, options)  # type: ignore[attr-defined]  # it raises
    assert commands.pop("gateway") == DOCKERFILES[0].command
    for command in commands.values():
        *python, name, mode = command
        assert python == ["python", "-m", "nemostream_agent"] and name in AGENTS | PROGRAMS and mode == "start"


def test_the_engine_s_check_tells_one_that_answers_from_none(running: GatewayProcess) -> None:
    kind, *check = ours()["engine"]["healthcheck"]["test"]
    with new_place() as nobody:
        for place, status in ((running.place, 0), (nobody, 1)):
            own = environment(NEMOSTREAM_SOCKET=str(place.socket))
            assert subprocess.run(check, env=own).returncode == status


def test_the_livekit_server_is_the_one_that_the_tests_run() -> None:
    assert composed()["services"]["livekit"]["image"].rpartition(":")[2] == PACKAGE.rpartition("@")[2]


def test_the_engine_is_the_one_of_the_page_on_sharing() -> None:
    shown, engine = documented_engine(), ours()["engine"]
    for key in ("user", "environment", "volumes"):
        assert shown["services"]["engine"][key] == engine[key]
    assert shown["services"]["engine"]["healthcheck"]["test"] == engine["healthcheck"]["test"]
    assert shown["volumes"] == composed()["volumes"]

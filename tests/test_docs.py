"""Every command in the documentation runs as it is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemostream_agent.agent_process import AgentProcess
from nemostream_agent.livekit_server import LiveKitServer
from tests.clips import path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {
    "make test": "what runs this test",
    "pip install livekit-plugins-nemo": "tests/test_wheel.py",
    "pip install 'livekit-plugins-nemo[convert]'": "tests/test_wheel.py",
}
AGENT = re.compile(r"python -m nemostream_agent (\S+) dev")


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S):
            joined = block.replace("\\\n", " ")
            found += [(page.name, line.split("  #")[0].strip()) for line in joined.splitlines() if line.strip()]
    return found


def plain() -> list[tuple[str, str]]:
    return [(p, c) for p, c in commands() if c not in ELSEWHERE and not AGENT.fullmatch(c) and "train" not in c]


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize(("page", "command"), plain(), ids=[f"{p}: {c}" for p, c in plain()])
def test_command_runs(page: str, command: str, tmp_path: Path) -> None:
    """README's commands run in the checkout, those of the other pages in a folder with a clip and a model."""
    cwd = ROOT if page == "README.md" else tmp_path
    if cwd == tmp_path:
        (tmp_path / "speech.wav").write_bytes(path("music").read_bytes())
        shutil.copy(ROOT / "tests" / "data" / "toy.nemo", tmp_path / "model.nemo")
        if "bundles/model" in command and "convert" not in command:
            subprocess.run(
                ["nemostream", "convert", "model.nemo", "bundles/model"], cwd=cwd, env=environment(), check=True
            )
    done = subprocess.run(["bash", "-c", command], cwd=cwd, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() or command.startswith(("export", "nemostream transcribe --model"))


@pytest.mark.parametrize("program", sorted({m[1] for _, c in commands() if (m := AGENT.fullmatch(c))}))
async def test_agent_registers_with_a_server(program: str, server: LiveKitServer) -> None:
    async with AgentProcess(server, program) as agent:
        assert "registered worker" in agent.log


def test_every_page_is_reachable_from_the_readme() -> None:
    readme = PAGES[0].read_text()
    for page in PAGES[1:]:
        assert f"docs/{page.name}" in readme, page.name
    for link in re.findall(r"\]\((?!http)([^)#]+)", readme):
        assert (ROOT / link).exists(), link

"""Models from the hub: the real command against a look-alike on loopback, and everything that can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import DATA
from tests.hub import Hub, Repo

TOY = (Path(DATA) / "toy.nemo").read_bytes()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_HOME": str(home / "hf"), **more}


def nemostream(*args: str, home: Path, before: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "nemostream", *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment(home, **env), timeout=240)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a command that failed."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("nemostream: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def nothing_to_load(home: Path, name: str) -> None:
    """A name whose download failed is not a model, and says what to do."""
    says = refused(nemostream("transcribe", str(Path(DATA).parent / "clips" / "none.wav"), "--model", name, home=home))
    assert f"run: nemostream download {name}" in says
    assert not (home / "cache" / "nemostream" / "hub").exists()


def test_a_name_is_downloaded_once_and_found_without_network(hub: Hub, home: Path) -> None:
    hub.repos["toys/toy"] = repo = Repo({"toy.nemo": TOY, "README.md": b"x"}, language=["en", "de"])
    done = nemostream("download", "toys/toy", home=home, HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    bundle = Path(done.stdout.strip().rpartition(": ")[2])
    info = json.loads((bundle / "model.json").read_text())
    assert info["name"] == "toy" and info["languages"] == ["en", "de"]
    asked = len(repo.asked)
    again = nemostream("download", "toys/toy", home=home, HF_ENDPOINT=hub.url)
    assert again.stdout == done.stdout and len(repo.asked) == asked, "what is here is not fetched again"
    shutil.rmtree(home / "hf")  # at runtime only the bundle counts
    code = (
        "from nemostream.models.catalog import resolve; import sys; print(resolve('toys/toy'), 'torch' in sys.modules)"
    )
    env = environment(home, HF_ENDPOINT="http://127.0.0.1:9")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert found.stdout.split() == [str(bundle), "False"], found.stderr


def test_a_download_that_is_cut_goes_on_where_it_stopped(hub: Hub, home: Path) -> None:
    # Larger than the pieces that huggingface_hub writes; what follows the end of an archive means nothing.
    hub.repos["toys/cut"] = repo = Repo({"toy.nemo": TOY + bytes(20 << 20)}, cuts=[12 << 20])
    assert nemostream("download", "toys/cut", home=home, HF_ENDPOINT=hub.url).returncode == 0
    first, second = repo.asked
    assert first == "" and int(second.removeprefix("bytes=").rstrip("-")) >= 10 << 20, "from the beginning again"


def test_a_download_that_is_cut_for_good_leaves_nothing(hub: Hub, home: Path) -> None:
    hub.repos["toys/gone"] = repo = Repo({"toy.nemo": TOY + bytes(20 << 20)}, cuts=[12 << 20] + [0] * 20)
    says = refused(nemostream("download", "toys/gone", home=home, HF_ENDPOINT=hub.url))
    assert "toys/gone cannot be fetched" in says and "try again" in says
    nothing_to_load(home, "toys/gone")
    repo.cuts.clear()
    assert nemostream("download", "toys/gone", home=home, HF_ENDPOINT=hub.url).returncode == 0


def test_a_file_that_is_not_what_was_announced_is_removed(hub: Hub, home: Path) -> None:
    hub.repos["toys/wrong"] = repo = Repo({"toy.nemo": TOY}, announced="0" * 64)
    says = refused(nemostream("download", "toys/wrong", home=home, HF_ENDPOINT=hub.url))
    assert "is damaged" in says and "download it again" in says
    nothing_to_load(home, "toys/wrong")
    repo.announced = None
    assert nemostream("download", "toys/wrong", home=home, HF_ENDPOINT=hub.url).returncode == 0


def test_a_full_disk_is_said(hub: Hub, home: Path) -> None:
    hub.repos["toys/full"] = Repo({"toy.nemo": TOY})
    (home / "hf").mkdir()
    (home / "cache").mkdir()
    mount = f'mount -t tmpfs -o size=2m tmpfs {home}/hf && exec "$@"'
    before = ("unshare", "--mount", *(() if os.getuid() == 0 else ("--map-root-user",)), "sh", "-c", mount, "sh")
    says = refused(nemostream("download", "toys/full", home=home, before=before, HF_ENDPOINT=hub.url))
    assert "no space is left on the disk" in says
    nothing_to_load(home, "toys/full")


@pytest.mark.parametrize(
    ("name", "env", "says"),
    [
        ("toys/gated", {}, "is gated: accept its terms"),
        ("toys/absent", {}, "is not on the hub"),
        ("toys/two", {}, "does not hold one .nemo checkpoint (found: a.nemo, b.nemo)"),
        ("toys/toy", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be fetched"),
        ("toys/toy", {"HF_HUB_OFFLINE": "1"}, "while HF_HUB_OFFLINE is set"),
        ("no-name", {}, "is no repository of the hub"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(hub: Hub, home: Path, name: str, env: dict[str, str], says: str) -> None:
    hub.repos["toys/gated"] = Repo({"toy.nemo": TOY}, gated=True)
    hub.repos["toys/two"] = Repo({"a.nemo": TOY, "b.nemo": TOY})
    assert says in refused(nemostream("download", name, home=home, **{"HF_ENDPOINT": hub.url, **env}))


def test_a_revision_is_pinned(hub: Hub, home: Path) -> None:
    """What was downloaded once stays what the name means, until another revision is asked for."""
    hub.repos["toys/moves"] = repo = Repo({"toy.nemo": TOY})
    assert nemostream("download", "toys/moves", home=home, HF_ENDPOINT=hub.url).returncode == 0
    pin = home / "cache" / "nemostream" / "hub" / "toys--moves.json"
    assert json.loads(pin.read_text())["revision"] == "a" * 40
    repo.commit = "b" * 40
    says = refused(nemostream("download", "toys/moves", home=home, HF_ENDPOINT=hub.url))
    assert "no such revision" in says
    assert nemostream("download", "toys/moves", "--revision", "main", home=home, HF_ENDPOINT=hub.url).returncode == 0
    assert json.loads(pin.read_text())["revision"] == "b" * 40

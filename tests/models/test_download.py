"""Models from the hub: the real command against a look-alike on loopback, and everything that can go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemostream.errors import UnknownModel
from nemostream.models import catalog
from nemostream.models.bundle import Bundle, load_bundle
from nemostream.models.hub import bundle_name
from tests.hub import LARGE, TOY, Hub, Repo, environment, keep_converted, keep_downloaded
from tests.models import forked


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, toy_bundle: Bundle) -> Path:
    """A home where the toy was converted before, under the name "toy": most tests are about what comes before."""
    keep_converted(tmp_path, toy_bundle, "toy")
    return tmp_path


def start(*args: str, home: Path, before: tuple[str, ...] = (), **env: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", "nemostream", *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment(home, **env))


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def nemostream(*args: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return forked.nemostream(*args, env=environment(home, **env), folder=home)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a command that failed."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("nemostream: ")]
    assert len(lines) == 1 and done.stdout == "", done.stderr
    return lines[0]


def nothing_to_load(home: Path, name: str) -> None:
    """A name whose download failed is not a model, and says what to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        with pytest.raises(UnknownModel, match=f"run: nemostream download {name}"):
            catalog.resolve(name)
        assert catalog.downloaded() == ()


def test_a_name_is_downloaded_once_and_found_without_network(hub: Hub, home: Path) -> None:
    hub.repos["once/toy"] = repo = Repo({"toy.nemo": TOY, "README.md": b"x"})
    done = ended(start("download", "once/toy", home=home, HF_ENDPOINT=hub.url))
    assert done.returncode == 0, done.stderr
    bundle = done.stdout.removeprefix("once/toy: ").rstrip("\n")
    assert len(repo.asked) == 1
    shutil.rmtree(home / "hf")  # from now on only the bundle counts
    again = nemostream("download", "once/toy", home=home, HF_ENDPOINT="http://127.0.0.1:9")
    assert again.stdout == done.stdout and again.stderr == "", "what is here is not asked for again"
    code = (
        "from nemostream.models.catalog import resolve; import sys; print(resolve('once/toy'), "
        "{'torch', 'huggingface_hub'} & set(sys.modules))"
    )
    env = environment(home, HF_ENDPOINT="http://127.0.0.1:9")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert found.stdout.split() == [bundle, "set()"], found.stderr


def test_where_nobody_watches_progress_is_plain_lines(hub: Hub, home: Path) -> None:
    hub.repos["lines/toy"] = Repo({"toy.nemo": TOY})
    done = nemostream("download", "lines/toy", home=home, HF_ENDPOINT=hub.url)
    assert done.stderr.splitlines() == ["fetching toy.nemo, 6 MB", "checking its hash", "converting"]
    assert done.stdout.count("\n") == 1 and not {"\r", "\x1b"} & set(done.stdout + done.stderr)


def test_two_at_once_make_one_bundle_and_tidy_up_behind_one_that_was_killed(
    hub: Hub, tmp_path: Path, toy_bundle: Bundle
) -> None:
    hub.repos["two/toy"] = Repo({"toy.nemo": TOY}, language=["en", "de"])
    bundles = tmp_path / "cache" / "nemostream" / "bundles"
    folder = bundles / bundle_name("toy", hashlib.sha256(TOY).hexdigest())
    shutil.copytree(toy_bundle.path, bundles / f".{folder.name}.half")
    nothing_to_load(tmp_path, "two/toy")
    both = [start("download", "two/toy", home=tmp_path, HF_ENDPOINT=hub.url) for _ in range(2)]
    one, other = [ended(process) for process in both]
    assert (one.returncode, other.returncode) == (0, 0), one.stderr + other.stderr
    assert ("waiting for another" in one.stderr) + ("waiting for another" in other.stderr) == 1
    assert [path for path in bundles.iterdir() if path.is_dir()] == [folder]
    assert one.stdout == other.stdout == f"two/toy: {folder}\n"
    info = load_bundle(folder).info
    assert info.name == "toy" and info.languages == ("en", "de")


def test_one_killed_while_it_fetches_leaves_nothing_and_the_next_succeeds(hub: Hub, home: Path) -> None:
    hub.repos["killed/toy"] = repo = Repo({"toy.nemo": LARGE}, stall=12 << 20)
    with start("download", "killed/toy", home=home, HF_ENDPOINT=hub.url) as killed:
        assert repo.stalled.wait(60)
        killed.kill()
    nothing_to_load(home, "killed/toy")
    repo.stall = None
    assert nemostream("download", "killed/toy", home=home, HF_ENDPOINT=hub.url).returncode == 0


def test_a_download_that_is_cut_goes_on_where_it_stopped(hub: Hub, home: Path) -> None:
    hub.repos["cut/toy"] = repo = Repo({"toy.nemo": LARGE}, cuts=[12 << 20])
    assert nemostream("download", "cut/toy", home=home, HF_ENDPOINT=hub.url).returncode == 0
    first, second = repo.asked
    assert first == "" and int(second.removeprefix("bytes=").rstrip("-")) >= 10 << 20, "from the beginning again"


def test_a_download_that_is_cut_for_good_leaves_nothing(hub: Hub, home: Path) -> None:
    hub.repos["gone/toy"] = repo = Repo({"toy.nemo": LARGE}, cuts=[12 << 20] + [0] * 20)
    says = refused(nemostream("download", "gone/toy", home=home, HF_ENDPOINT=hub.url))
    assert "gone/toy cannot be fetched" in says and "try again" in says
    nothing_to_load(home, "gone/toy")
    repo.cuts.clear()
    assert nemostream("download", "gone/toy", home=home, HF_ENDPOINT=hub.url).returncode == 0


def test_a_file_that_is_not_what_was_announced_is_removed(hub: Hub, home: Path) -> None:
    hub.repos["wrong/toy"] = repo = Repo({"toy.nemo": TOY}, announced="0" * 64)
    says = refused(nemostream("download", "wrong/toy", home=home, HF_ENDPOINT=hub.url))
    assert "is damaged" in says and "download it again" in says
    nothing_to_load(home, "wrong/toy")
    repo.announced = None
    assert nemostream("download", "wrong/toy", home=home, HF_ENDPOINT=hub.url).returncode == 0


def test_a_full_disk_is_said(hub: Hub, home: Path) -> None:
    hub.repos["full/toy"] = Repo({"toy.nemo": TOY})
    (home / "hf").mkdir()
    mount = f'mount -t tmpfs -o size=2m tmpfs {home}/hf && exec "$@"'
    before = ("unshare", "--mount", *(() if os.getuid() == 0 else ("--map-root-user",)), "sh", "-c", mount, "sh")
    says = refused(ended(start("download", "full/toy", home=home, before=before, HF_ENDPOINT=hub.url)))
    assert "no space is left on the disk" in says
    nothing_to_load(home, "full/toy")


@pytest.mark.parametrize(
    ("name", "env", "says"),
    [
        ("toys/absent", {}, "is not on the hub"),
        ("toys/two", {}, "does not hold one .nemo checkpoint (found: a.nemo, b.nemo)"),
        ("toys/toy", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be fetched"),
        ("toys/toy", {"HF_HUB_OFFLINE": "1"}, "while HF_HUB_OFFLINE is set"),
        ("no-name", {}, "is no repository of the hub"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(hub: Hub, home: Path, name: str, env: dict[str, str], says: str) -> None:
    hub.repos["toys/toy"] = Repo({"toy.nemo": TOY})
    hub.repos["toys/two"] = Repo({"a.nemo": TOY, "b.nemo": TOY})
    assert says in refused(nemostream("download", name, home=home, **{"HF_ENDPOINT": hub.url, **env}))


def test_a_gated_repository_opens_with_the_token(hub: Hub, home: Path) -> None:
    hub.repos["gated/toy"] = Repo({"toy.nemo": TOY}, token="hf_secret")
    for env in ({}, {"HF_TOKEN": "hf_other"}):
        says = refused(nemostream("download", "gated/toy", home=home, HF_ENDPOINT=hub.url, **env))
        assert "is gated: accept its terms" in says and "hf_" not in says
    done = nemostream("download", "gated/toy", home=home, HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret")
    assert done.returncode == 0 and "hf_secret" not in done.stdout + done.stderr


def test_a_revision_is_pinned(hub: Hub, home: Path) -> None:
    """What was downloaded once stays what the name means, until another revision is asked for."""
    hub.repos["moves/toy"] = repo = Repo({"toy.nemo": TOY})
    pin = home / "cache" / "nemostream" / "hub" / "moves--toy.json"

    def download(*args: str) -> subprocess.CompletedProcess[str]:
        return nemostream("download", "moves/toy", *args, home=home, HF_ENDPOINT=hub.url)

    def revision() -> str:
        return str(json.loads(pin.read_text())["revision"])

    assert download().returncode == 0 and revision() == "a" * 40
    repo.commit = "b" * 40
    assert download().returncode == 0 and revision() == "a" * 40
    assert "has no revision old; --revision main is the newest" in refused(download("--revision", "old"))
    assert revision() == "a" * 40
    assert download("--revision", "main").returncode == 0 and revision() == "b" * 40


def test_a_bundle_of_another_format_is_not_found(home: Path) -> None:
    """An engine of another version asks for a download instead of failing on what it cannot read."""
    (bundle, *_) = (home / "cache" / "nemostream" / "bundles").iterdir()
    older = bundle.rename(bundle.with_name(bundle.name.rpartition("-v")[0] + "-v0"))
    keep_downloaded(home, "old/toy", older.name)
    nothing_to_load(home, "old/toy")


def test_models_says_which_are_here(home: Path) -> None:
    name = "nvidia/parakeet_realtime_eou_120m-v1"

    def listed() -> dict[str, list[str]]:
        lines = nemostream("models", home=home).stdout.splitlines()
        return {columns[0]: columns[1:] for columns in (line.split("\t") for line in lines)}

    before = listed()
    assert before["en-starter"][:2] == ["shipped", "en"]
    assert before[name][:3] == ["not here", "en", "-"] and before[name][-1] == "NVIDIA Open Model License"
    assert {len(columns) for columns in before.values()} == {7}
    assert "here/toy" not in before
    (bundle, *_) = (home / "cache" / "nemostream" / "bundles").iterdir()
    keep_downloaded(home, "here/toy", bundle.name)
    keep_downloaded(home, name, bundle.name)
    after = listed()
    assert after["here/toy"][:4] == ["downloaded", "en", "80/160/560/1120 ms", "rnnt/ctc"]
    assert after[name][0] == "downloaded" and after[name][-1] == before[name][-1]
    assert after.keys() - before.keys() == {"here/toy"}

"""`python -m livekit.agents download-files` brings the models that NEMOSTREAM_MODEL names; a stream finds them, or says
which command brings them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from livekit.agents import APIStatusError

from livekit.plugins import nemo
from nemostream.models import catalog
from nemostream.models.bundle import Bundle
from nemostream.models.hub import bundle_name
from nemostream.protocol import NO_ENDPOINT
from tests.adapter.helpers import ONE_TRY, push, read_to_end, silence, toy
from tests.hub import TOY, Hub, Repo, environment, keep_converted, keep_downloaded

NAME = "nvidia/parakeet_realtime_eou_120m-v1"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        running.repos[NAME] = Repo({"model.nemo": TOY})
        running.repos["toys/toy"] = Repo({"toy.nemo": TOY})
        yield running


@pytest.fixture
def home(tmp_path: Path, toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for commands and for this process, where what is downloaded needs no conversion."""
    keep_converted(tmp_path, toy_bundle, NAME.rpartition("/")[2], "toy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def download_files(home: Path, **env: str) -> tuple[int, list[str]]:
    """Its exit status, and the lines about our plugin."""
    command = [sys.executable, "-m", "livekit.agents", "download-files"]
    done = subprocess.run(command, env=environment(home, **env), capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    begin = lines.index("downloading files for livekit.plugins.nemo") + 1
    others = "finished", "HTTP Request"  # the framework's and the HTTP library's
    return done.returncode, [line for line in lines[begin:] if not line.startswith(others)]


def test_without_a_name_there_is_nothing_to_download(home: Path) -> None:
    status, (line,) = download_files(home)
    assert status == 0 and "nothing to download" in line and str(catalog.resolve(None)) in line


async def test_what_the_environment_names_is_downloaded_and_heard_with(home: Path, hub: Hub) -> None:
    status, lines = download_files(home, HF_ENDPOINT=hub.url, NEMOSTREAM_MODEL=f"toys/toy, {NAME} en-starter")
    assert status == 0 and len([line for line in lines if " is here: " in line]) == 3
    assert catalog.downloaded() == (NAME, "toys/toy")
    async with nemo.STT(model="toys/toy", chunk_ms=160, engine="local", endpointing=NO_ENDPOINT) as stt:
        stream = stt.stream(conn_options=ONE_TRY)
        said = toy("please", "call", "me")
        push(stream, said.pcm)
        stream.end_input()
        events = await read_to_end(stream)
    assert [e.alternatives[0].text for e in events if e.alternatives and e.alternatives[0].text][-1] == said.text


def test_what_cannot_be_had_is_one_sentence_and_fails_the_command(home: Path, hub: Hub) -> None:
    status, (line,) = download_files(home, HF_ENDPOINT=hub.url, NEMOSTREAM_MODEL="toys/absent")
    assert status == 1
    assert line.startswith("failed downloading files for livekit.plugins.nemo: toys/absent is not on the hub")


async def test_a_model_that_was_not_downloaded_names_the_command_for_good(home: Path) -> None:
    async with nemo.STT(model=NAME, engine="local") as stt:
        stream = stt.stream(conn_options=ONE_TRY)
        push(stream, silence(0.1))
        with pytest.raises(APIStatusError) as caught:
            await read_to_end(stream)
    assert caught.value.message == f"the model {NAME} is not on this machine; run: nemostream download {NAME}"
    assert (caught.value.status_code, caught.value.retryable) == (404, False)


def test_a_name_that_was_downloaded_is_no_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the engine has it: a folder of that name is meant only while nothing was downloaded under it."""
    folder = home / "toys" / "toy"
    folder.mkdir(parents=True)
    monkeypatch.chdir(home)
    assert nemo.STT(model="toys/toy").model == str(folder)
    keep_downloaded(home, "toys/toy", bundle_name("toy", hashlib.sha256(TOY).hexdigest()))
    assert nemo.STT(model="toys/toy").model == "toys/toy"
    assert nemo.STT(model="./toys/toy").model == str(folder)

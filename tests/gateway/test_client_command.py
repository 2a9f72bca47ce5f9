"""`nemostream-agent client`: every protocol gives the clip's text; what goes wrong is one sentence."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.sync.client import connect

from nemostream_agent import stream_client
from nemostream_agent.protocols.address import is_upload, talk_of
from nemostream_agent.protocols.errors import ClientError
from nemostream_agent.protocols.listen import ListenTalk
from nemostream_agent.protocols.op import OpTalk
from nemostream_agent.protocols.talk import Heard
from nemostream_agent.protocols.ws import WsTalk
from tests.clips import TEXTS, path
from tests.gateway.process import GatewayProcess

LIVE = ("ws", "", "v1/listen")
UPLOADS = ("transcribe", "v1/audio/transcriptions")
KEY = "k" * 43


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Client = Callable[..., Done]


@pytest.fixture
def client(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Client:
    """The command, in this process; `python -m` it is in the test of its end."""
    monkeypatch.delenv("NEMOSTREAM_API_KEY", raising=False)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["nemostream-agent client", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            stream_client.main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


def sentence(done: Done) -> str:
    """What it said on failing, without the name in front."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line.removeprefix("nemostream-agent: ")


@pytest.fixture(scope="module")
def small() -> Iterator[GatewayProcess]:
    """A gateway that wants a key and has one place."""
    with GatewayProcess("--max-streams", "1", environment={"NEMOSTREAM_API_KEYS": KEY}) as running:
        yield running


@pytest.mark.parametrize("place", LIVE)
def test_a_live_protocol_gives_the_text_of_the_clip(client: Client, gateway: GatewayProcess, place: str) -> None:
    done = client("--fast", path("music"), f"{gateway.ws}/{place}")
    assert (done.returncode, done.stdout) == (0, TEXTS["music"] + "\n"), done.stderr
    assert re.fullmatch(
        r"2\.64 s of audio, sent in \d+\.\d\d s; the first text \d+\.\d\d s after its begin, "
        r"the last answer \d+\.\d\d s after its end\n",
        done.stderr,
    )


@pytest.mark.parametrize("place", UPLOADS)
def test_an_upload_gives_the_text_of_the_clip(client: Client, gateway: GatewayProcess, place: str) -> None:
    done = client(path("music"), f"{gateway.http}/{place}")
    assert (done.returncode, done.stdout) == (0, TEXTS["music"] + "\n"), done.stderr
    assert re.fullmatch(r"answered after \d+\.\d\d s\n", done.stderr)


def test_in_real_time_audio_takes_as_long_as_it_is(client: Client, gateway: GatewayProcess) -> None:
    done = client(path("music"), f"{gateway.ws}/ws")
    assert done.stdout == TEXTS["music"] + "\n"
    sent = re.search(r"sent in (\d+\.\d\d) s", done.stderr)
    assert sent and float(sent[1]) >= 2.6


def test_options_reach_the_server(client: Client, gateway: GatewayProcess) -> None:
    said = sentence(client("--fast", "--chunk-ms", 7, path("music"), f"{gateway.ws}/ws"))
    assert "no chunk of 7 ms" in said
    said = sentence(client("--fast", path("music"), f"{gateway.ws}/ws?chunk_ms=9"))
    assert "no chunk of 9 ms" in said


def test_interrupt_ends_the_stream_and_what_was_said_is_printed(gateway: GatewayProcess) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "nemostream_agent", "client", path("music"), f"{gateway.ws}/ws?chunk_ms=80"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while gateway.health()["active_streams"] == 0:
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    sent = re.match(r"(\d+\.\d\d) s of audio", err)
    assert sent and float(sent[1]) < 2.64
    assert TEXTS["music"].startswith(out.strip())


def test_a_server_with_keys_takes_the_key_and_says_that_one_is_needed(client: Client, small: GatewayProcess) -> None:
    assert sentence(client(path("music"), f"{small.ws}/ws")) == (
        "the server wants an API key that it knows; give it with --key"
    )
    done = client("--fast", "--key", KEY, path("music"), f"{small.ws}/ws")
    assert done.stdout == TEXTS["music"] + "\n"


def test_a_full_server_is_said_to_be_full(client: Client, small: GatewayProcess) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    with connect(f"{small.ws}/ws", additional_headers=headers):  # not by our own client, which is what is tested
        while small.health()["active_streams"] == 0:
            pass
        done = client("--key", KEY, path("music"), f"{small.ws}/ws")
    assert sentence(done).startswith("the server has no place now: all 1 streams are taken")


def test_a_server_that_is_not_there(client: Client, gateway: GatewayProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}/ws"
        assert sentence(client(path("music"), url)) == f"{url} cannot be reached: Connection refused"
    url = f"{gateway.ws}/elsewhere/ws"
    assert sentence(client(path("music"), f"{url}?token=secret")) == (
        f"nothing answers at {url} (HTTP 403); look at its path"
    )


def test_a_source_that_cannot_be_sent(client: Client, gateway: GatewayProcess, tmp_path: Path) -> None:
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    assert "cannot be read as audio" in sentence(client(text, f"{gateway.ws}/ws"))
    assert sentence(client(tmp_path / "none.wav", f"{gateway.ws}/ws")).endswith("none.wav does not exist")
    assert "none.wav" in sentence(client(tmp_path / "none.wav", f"{gateway.http}/transcribe"))
    assert "microphone needs an address" in sentence(client("microphone", f"{gateway.http}/transcribe"))


def test_a_machine_without_a_microphone_says_so(gateway: GatewayProcess) -> None:
    """Where there is one, it is heard until the stream is ended."""
    running = subprocess.Popen(
        [sys.executable, "-m", "nemostream_agent", "client", "microphone", f"{gateway.ws}/ws"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while running.poll() is None and gateway.health()["active_streams"] == 0:
        pass
    if running.poll() is None:
        running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert len(err.splitlines()) == 1 and ("microphone" in err or "s of audio" in err)


def test_the_path_says_which_protocol_an_address_speaks() -> None:
    for url, kind in (
        ("ws://host/ws", WsTalk),
        ("wss://host/behind/a/proxy/ws?language=en", WsTalk),
        ("ws://host", OpTalk),
        ("ws://host:80/?chunk_ms=80", OpTalk),
        ("ws://host/v1/listen", ListenTalk),
    ):
        assert isinstance(talk_of(url), kind) and not is_upload(url)
    assert is_upload("https://host/transcribe") and is_upload("http://host/v1/audio/transcriptions")
    for url in ("host/ws", "ws:///ws", "http://host/ws", "ws://host/transcribe", "ftp://host/ws", ""):
        with pytest.raises(ClientError, match="names no protocol"):
            is_upload(url)


def test_answers_are_read() -> None:
    ws = WsTalk()
    assert ws.read('{"text": "a b", "is_final": false, "timestamp": 1.5}') == Heard("a b", False)
    assert ws.read('{"text": "a b", "is_final": true, "timestamp": 1.5}') == Heard("a b", True)
    assert ws.read("END") is None and ws.over

    op = OpTalk()
    interim = '{"op": "interim", "sid": "1", "text": "a", "final": %s, "ts": 17}'
    assert op.read(interim % "true") == Heard("a", True) and not op.over  # an utterance's, and more may come
    op.end()
    assert op.read(interim % "false") == Heard("a", False) and not op.over
    assert op.read('{"op": "error", "message": "no"}') is None and not op.over
    assert op.read(interim % "true") == Heard("a", True) and op.over

    listen = ListenTalk()
    result = '{"type": "Results", "is_final": true, "channel": {"alternatives": [{"transcript": "a"}]}}'
    assert listen.read(result) == Heard("a", True)
    assert listen.read('{"type": "SpeechStarted", "channel": [0, 1], "timestamp": 1.0}') is None
    assert listen.read('{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.0}') is None
    listen.end()
    assert listen.read('{"type": "Metadata", "request_id": "1"}') is None and listen.over

"""POST /transcribe, by plain HTTP: every kind of file, and every kind of trouble."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jiwer
import numpy as np
import psutil
import pytest
import websockets

from nemostream import transcribe
from nemostream.audio import read_audio
from nemostream.engine import Engine
from nemostream.errors import AudioError
from nemostream.protocol import SAMPLE_RATE, Final
from nemostream_agent.gateway.app import create_app
from nemostream_agent.gateway.formats import OPTIONS
from nemostream_agent.gateway.service import Service
from nemostream_agent.gateway.settings import Clip, Limits, Settings
from tests.clips import TEXTS, path
from tests.gateway.inside import serving
from tests.gateway.process import GatewayProcess
from tests.gateway.recordings import KINDS, NAMES, Kind, bomb, encoded, silence, speech, wav

LARGEST = 1120
"""The largest chunk of the embedded model, ms."""
FIELDS = {"text", "words", "segments", "duration", "processing_time", "language", "model"}
WAIT = 60.0
CONCAT = b"ffconcat version 1.0\nfile tests/clips/music.opus\n"


def post(url: str, data: bytes, timeout: float = WAIT, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/transcribe", files={"file": ("sound", data)}, data=fields, timeout=timeout)


def finals(data: bytes, chunk_ms: int = LARGEST, decoder: str | None = None) -> list[Final]:
    """What the file path says: `nemostream transcribe --chunk-ms ...`."""
    core = transcribe.open_file_stream(None, chunk_ms, decoder, None)
    return [e for events, _, _ in transcribe.run(core, io.BytesIO(data)) for e in events if isinstance(e, Final)]


def said(found: list[Final]) -> list[tuple[str, float, float]]:
    words = [word for final in found for word in final.words]
    return [(w.text, round(w.start_sample / SAMPLE_RATE, 3), round(w.end_sample / SAMPLE_RATE, 3)) for w in words]


def understood(text: str) -> float:
    """The part of what is said in `speech` that the model, which is small, has heard."""
    return 1.0 - float(jiwer.wer(" ".join(TEXTS[name] for name in NAMES), text))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_text_and_words_of_every_kind_of_file_are_those_of_the_file_path(gateway: GatewayProcess, kind: Kind) -> None:
    data = encoded(speech(), kind)
    answer = post(gateway.http, data)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    found, expected = answer.json(), finals(data)
    assert set(found) == FIELDS
    assert found["text"] == " ".join(final.text for final in expected)
    assert understood(found["text"]) >= 0.8
    assert [(w["text"], w["start"], w["end"]) for w in found["words"]] == said(expected)
    assert all(set(w) == {"text", "start", "end", "confidence"} and 0 < w["confidence"] <= 1 for w in found["words"])
    assert [s["text"] for s in found["segments"]] == [final.text for final in expected]
    assert [w for s in found["segments"] for w in s["words"]] == found["words"]
    assert found["duration"] == pytest.approx(len(speech()) / SAMPLE_RATE, abs=0.1)
    assert found["processing_time"] > 0 and (found["language"], found["model"]) == ("en", "default")


@pytest.mark.parametrize(("chunk_ms", "decoder"), [(80, "rnnt"), (160, "ctc")])
def test_text_is_that_of_the_file_path_with_the_same_options(
    gateway: GatewayProcess, chunk_ms: int, decoder: str
) -> None:
    data = wav(speech())
    found = post(gateway.http, data, chunk_ms=chunk_ms, decoder=decoder).json()
    expected = finals(data, chunk_ms, decoder)
    assert found["text"] == " ".join(final.text for final in expected)
    assert [(w["text"], w["start"], w["end"]) for w in found["words"]] == said(expected)


def test_a_file_much_longer_than_what_may_wait_for_the_engine_is_transcribed_to_its_end(
    gateway: GatewayProcess,
) -> None:
    """With a long silence in it, in which the engine has nothing to say but how far it is."""
    pause = np.zeros(40 * SAMPLE_RATE, np.float32)
    data = wav(np.concatenate([speech(), pause, speech(60)]))
    found = post(gateway.http, data).json()
    assert [s["text"] for s in found["segments"]] == [final.text for final in finals(data)]
    assert found["duration"] - 2 < found["words"][-1]["end"] <= found["duration"]


@pytest.mark.parametrize("name", ["file", "audio"])
def test_json_and_both_names_of_the_field_are_the_same(gateway: GatewayProcess, name: str) -> None:
    data = path("music").read_bytes()
    asked = {"chunk_ms": 160, "keyterms": ["garage"]}
    form = httpx.post(f"{gateway.http}/transcribe", files={name: ("x", data)}, data=asked, timeout=WAIT).json()
    body = {"audio": base64.b64encode(data).decode(), **asked}
    other = httpx.post(f"{gateway.http}/transcribe", json=body, timeout=WAIT).json()
    assert form["text"] == TEXTS["music"]
    assert {**form, "processing_time": 0} == {**other, "processing_time": 0}


def noise(size: int) -> bytes:
    return np.random.default_rng(1).bytes(size)


BAD_FILES = {
    "nothing": b"",
    "a zip": b"PK\x03\x04" + noise(5000),
    "noise": noise(300_000),
    "zeros": bytes(300_000),
    "text": b"hello, this is a text and no audio\n" * 99,
    "the head of a WAV": wav(speech())[:20],
    "a WAV without samples": wav(speech()[:0]),
    "an MP3 of which only the head is one": b"\xff\xfb\x90\x64" * 9000,
    "half an M4A, whose index is at its end": encoded(speech(), KINDS["M4A"])[:40_000],
    "a playlist": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    "a list of files": CONCAT,
}


@pytest.mark.parametrize("data", BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_no_sound_file_is_refused_in_one_sentence(gateway: GatewayProcess, data: bytes) -> None:
    answer = post(gateway.http, data)
    assert answer.status_code == 400 and answer.json()["code"] == "bad_data"
    assert_one_sentence(answer.json()["detail"])


BAD_REQUESTS: dict[str, tuple[int, dict[str, Any]]] = {
    "no body": (415, {}),
    "the bare file": (415, {"content": b"RIFF", "headers": {"content-type": "audio/wav"}}),
    "a form without a file": (400, {"files": {"other": b"x"}}),
    "a file that is a field": (415, {"data": {"file": "x"}}),
    "a form that is none": (400, {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}),
    "a form without boundary": (400, {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    "JSON that is none": (400, {"content": b"{", "headers": {"content-type": "application/json"}}),
    "JSON of another kind": (400, {"json": [1]}),
    "JSON without audio": (400, {"json": {"language": "en"}}),
    "no base64": (400, {"json": {"audio": "%%%"}}),
    "half a base64": (400, {"json": {"audio": "UklGR"}}),
    "nested JSON": (400, {"json": {"audio": "", "language": {"a": 1}}}),
    "a chunk that is no number": (400, {"files": {"file": b"x"}, "data": {"chunk_ms": "small"}}),
    "a chunk that the model lacks": (400, {"files": {"file": wav(speech())}, "data": {"chunk_ms": "7"}}),
    "a decoder that there is not": (400, {"files": {"file": b"x"}, "data": {"decoder": "beam"}}),
    "a model that there is not": (400, {"files": {"file": b"x"}, "data": {"model": "/etc/passwd"}}),
    "a language that is not spoken": (400, {"files": {"file": wav(speech())}, "data": {"language": "de"}}),
    "a keyterm too long": (400, {"files": {"file": wav(speech())}, "data": {"keyterms": "a" * 5000}}),
    "JSON too large": (413, {"json": {"audio": "A" * (17 << 20)}}),
}


@pytest.mark.parametrize(("status", "request_"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_request_that_means_nothing_is_refused_in_one_sentence(
    gateway: GatewayProcess, status: int, request_: dict[str, Any]
) -> None:
    answer = httpx.post(f"{gateway.http}/transcribe", timeout=WAIT, **request_)
    assert answer.status_code == status and set(answer.json()) == {"detail", "code"}
    assert_one_sentence(answer.json()["detail"])


def assert_one_sentence(text: str) -> None:
    assert 10 < len(text) < 400 and "\n" not in text and "Traceback" not in text


def test_of_a_truncated_file_there_is_what_came(gateway: GatewayProcess) -> None:
    whole = encoded(speech(), KINDS["MP3"])
    cut = whole[: len(whole) // 2 + 7]
    found = post(gateway.http, cut).json()
    assert found["text"] == " ".join(final.text for final in finals(cut))
    assert found["text"].startswith(f"{TEXTS['music']} {TEXTS['refund']}")
    assert found["duration"] < 10


@pytest.mark.parametrize("kind", ["MP3", "M4A", "FLAC"])
def test_behind_damage_the_file_goes_on(gateway: GatewayProcess, kind: str) -> None:
    data = bytearray(encoded(speech(), KINDS[kind]))
    middle = len(data) // 2
    data[middle : middle + 2000] = noise(2000)
    found = post(gateway.http, bytes(data)).json()
    assert found["text"].startswith(TEXTS["music"]) and found["text"].endswith(TEXTS["monday"])


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 0x7FFFFFF0, 0])
def test_what_a_header_says_of_the_length_does_not_count(gateway: GatewayProcess, claimed: int) -> None:
    answer = post(gateway.http, wav(speech(), claimed))
    if claimed:
        assert answer.json()["text"] == " ".join(final.text for final in finals(wav(speech())))
    else:
        assert answer.status_code == 400 or answer.json()["text"]


@pytest.mark.parametrize("make", [lambda: silence(10), lambda: bomb(1.2)], ids=["10 hours", "a FLAC bomb"])
def test_hours_in_a_small_file_are_refused_in_bounded_memory_before_the_engine_hears_any(
    gateway: GatewayProcess, make: Callable[[], bytes]
) -> None:
    data = make()
    post(gateway.http, wav(speech()))  # what is needed once is there
    heard, before = gateway.metric("nemostream_audio_seconds_total"), peak(gateway)
    answer = post(gateway.http, data)
    assert answer.status_code == 413 and answer.json()["code"] == "too_big"
    assert_one_sentence(answer.json()["detail"])
    assert gateway.metric("nemostream_audio_seconds_total") == heard
    assert peak(gateway) - before < 120 << 20  # decoded, it is 230 MB an hour


def peak(gateway: GatewayProcess) -> int:
    """The most memory that the gateway has ever held, in bytes."""
    status = Path(f"/proc/{psutil.Process(gateway.process.pid).pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) << 10


def test_no_file_opens_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list works where nothing forbids it, and does not with what uploads are opened with."""
    (tmp_path / "secret.wav").write_bytes(wav(speech()))
    monkeypatch.chdir(tmp_path)
    lists = b"ffconcat version 1.0\nfile secret.wav\n"
    assert sum(len(part) for part, _ in read_audio(io.BytesIO(lists))) == len(speech())
    with pytest.raises(AudioError):
        list(read_audio(io.BytesIO(lists), OPTIONS))
    with pytest.raises(AudioError):  # even a demuxer that would: nothing is opened
        list(read_audio(io.BytesIO(lists), {"protocol_whitelist": OPTIONS["protocol_whitelist"]}))


def half_sent(gateway: GatewayProcess, path: str, body: bytes, part: int) -> socket.socket:
    """A connection on which so many bytes of an upload were sent."""
    host, port = gateway.http.removeprefix("http://").split(":")
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + body + b"\r\n--b--\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(form)}\r\n"
    connection = socket.create_connection((host, int(port)))
    connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + form[:part])
    return connection


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def streams(gateway: GatewayProcess) -> object:
    return gateway.health()["active_streams"]


def test_who_leaves_in_the_middle_of_an_upload_leaves_nothing(gateway: GatewayProcess) -> None:
    served = gateway.metric("nemostream_streams_total")
    half_sent(gateway, "/transcribe", wav(speech(60)), 100_000).close()
    until(lambda: "gone" in httpx.get(f"{gateway.http}/metrics").text)
    assert streams(gateway) == 0 and gateway.metric("nemostream_streams_total") == served
    assert "Traceback" not in gateway.log()


@pytest.mark.parametrize("path", ["/transcribe", "/v1/audio/transcriptions"])
def test_who_leaves_while_the_file_is_transcribed_leaves_nothing(gateway: GatewayProcess, path: str) -> None:
    data = wav(speech(900))
    heard = gateway.metric("nemostream_audio_seconds_total")
    connection = half_sent(gateway, path, data, len(data) + 1000)
    until(lambda: gateway.metric("nemostream_audio_seconds_total") > heard)
    connection.close()
    until(lambda: streams(gateway) == 0)
    assert gateway.metric("nemostream_audio_seconds_total") - heard < 800
    assert "Traceback" not in gateway.log()


async def transcribed(url: str, data: bytes, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=WAIT) as client:
        return await client.post(f"{url}/transcribe", files={"file": ("x", data)}, headers=headers)


@pytest.mark.parametrize(("policy", "seconds", "status"), [("reject", 1, 422), ("reject", 12, 422), ("reject", 6, 200)])
async def test_a_duration_outside_the_range_is_refused(engine: Engine, policy: str, seconds: int, status: int) -> None:
    settings = Settings(clip=Clip("reject", 5, 10))
    async with serving(create_app(settings, engine)) as url:
        answer = await transcribed(url.replace("ws", "http", 1), wav(speech()[: seconds * SAMPLE_RATE]))
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["code"] == "duration" and "5 to 10 s" in answer.json()["detail"]


@pytest.mark.parametrize(("seconds", "heard"), [(2, 5), (17, 10), (6, 6)])
async def test_clipping_cuts_what_is_long_and_fills_what_is_short(engine: Engine, seconds: int, heard: int) -> None:
    samples = speech()[: seconds * SAMPLE_RATE]
    async with serving(create_app(Settings(clip=Clip("clip", 5, 10)), engine)) as url:
        found = (await transcribed(url.replace("ws", "http", 1), wav(samples))).json()
    clipped = np.zeros(heard * SAMPLE_RATE, np.float32)
    clipped[: len(samples)] = samples[: len(clipped)]
    assert found["duration"] == heard
    assert found["text"] == " ".join(final.text for final in finals(wav(clipped)))


async def test_who_has_no_key_no_place_or_too_much_is_told_so_by_status_and_header(engine: Engine) -> None:
    settings = Settings(api_keys=("secret",), limits=Limits(hard=1, upload_bytes=1 << 20, idle_seconds=1.0))
    app = create_app(settings, engine)
    service: Service = app.state.service
    async with serving(app) as ws:
        url, key, data = ws.replace("ws", "http", 1), "Bearer secret", path("music").read_bytes()
        refused = await transcribed(url, data)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert (await transcribed(url, data, Authorization=key)).json()["text"] == TEXTS["music"]
        assert (await transcribed(url, bytes(2 << 20), Authorization=key)).status_code == 413
        async with websockets.connect(f"{ws}/ws?token=secret") as socket_:
            await socket_.send(bytes(32000))
            async with asyncio.timeout(WAIT):
                while not service.house.open:
                    await asyncio.sleep(0.01)
            full = await transcribed(url, data, Authorization=key)
        assert full.status_code == 503 and int(full.headers["retry-after"]) >= 1
        assert full.json()["code"] == "full"


async def test_an_upload_that_stops_coming_is_ended(engine: Engine) -> None:
    async with serving(create_app(Settings(limits=Limits(idle_seconds=0.2)), engine)) as url:
        host, port = url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = "POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n"
        writer.write(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
        answer = await asyncio.wait_for(reader.readuntil(b"}"), WAIT)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ") and json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "idle"

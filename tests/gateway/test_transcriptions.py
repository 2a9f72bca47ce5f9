"""OpenAI's HTTP API, by the published client; and its traffic as it was recorded, for when there is no such client.

python -m tests.gateway.test_transcriptions      # record it anew
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest

from nemostream.engine import Engine
from nemostream_agent.gateway.app import create_app
from nemostream_agent.gateway.settings import Settings
from tests.clips import TEXTS, path
from tests.gateway.inside import serving
from tests.gateway.process import GatewayProcess
from tests.gateway.recorder import Recorder, send
from tests.gateway.recordings import KINDS, NAMES, encoded, speech

KEPT = Path(__file__).parent / "data" / "openai_client.jsonl"
TEXT = " ".join(TEXTS[name] for name in NAMES)
TIME = r"\d\d:\d\d:\d\d[,.]\d{3}"
Transcribe = Callable[..., Any]


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="anything", max_retries=0, timeout=60)


@pytest.fixture
def transcribe(gateway: GatewayProcess) -> Transcribe:
    """The client's call, with an M4A of all clips."""
    return transcriber(gateway.http)


def transcriber(url: str) -> Transcribe:
    file = ("speech.m4a", encoded(speech(), KINDS["M4A"]))

    def call(**options: Any) -> Any:
        return client(url).audio.transcriptions.create(**{"file": file, "model": "whisper-1", **options})

    return call


def test_json_is_the_text(transcribe: Transcribe) -> None:
    answer = transcribe()
    assert answer.text == TEXT and answer.usage.type == "duration" and answer.usage.seconds == 18


def test_text_is_the_text_and_a_line_break(transcribe: Transcribe) -> None:
    assert transcribe(response_format="text") == TEXT + "\n"


def test_verbose_json_has_what_was_asked_for(transcribe: Transcribe) -> None:
    both = transcribe(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert both.text == TEXT and both.language == "en" and both.duration == pytest.approx(17.64, abs=0.1)
    assert [segment.text for segment in both.segments] == [TEXTS[name] for name in NAMES]
    assert [segment.id for segment in both.segments] == list(range(len(NAMES)))
    assert [word.word for word in both.words] == TEXT.split()
    times = [time for word in both.words for time in (word.start, word.end)]
    assert times == sorted(times) and 0 < times[0] and times[-1] < both.duration
    for segment in both.segments:
        assert -1 < segment.avg_logprob < 0 and 0 < segment.compression_ratio < 3 and segment.start < segment.end
    segments = transcribe(response_format="verbose_json")
    assert segments.words is None and segments.segments == both.segments
    words = transcribe(response_format="verbose_json", timestamp_granularities=["word"])
    assert words.segments is None and words.words == both.words


def test_srt_is_numbered_cues(transcribe: Transcribe) -> None:
    cues = transcribe(response_format="srt").strip().split("\n\n")
    for number, (cue, name) in enumerate(zip(cues, NAMES, strict=True), 1):
        assert re.fullmatch(rf"{number}\n{TIME} --> {TIME}\n{TEXTS[name]}", cue)


def test_vtt_is_cues_behind_its_name(transcribe: Transcribe) -> None:
    head, *cues = transcribe(response_format="vtt").strip().split("\n\n")
    assert head == "WEBVTT"
    for cue, name in zip(cues, NAMES, strict=True):
        assert re.fullmatch(rf"{TIME} --> {TIME}\n{TEXTS[name]}", cue)


def test_a_stream_gives_the_text_in_pieces_and_then_as_a_whole(transcribe: Transcribe) -> None:
    *deltas, done = transcribe(stream=True)
    assert [event.type for event in deltas] == ["transcript.text.delta"] * len(NAMES)
    assert "".join(event.delta for event in deltas) == done.text == TEXT and done.type == "transcript.text.done"


def test_a_stream_begins_before_the_file_is_transcribed(gateway: GatewayProcess) -> None:
    heard = gateway.metric("nemostream_audio_seconds_total")
    file = ("speech.flac", encoded(speech(600), KINDS["FLAC"]))
    with client(gateway.http).audio.transcriptions.create(file=file, model="whisper-1", stream=True) as events:
        assert next(iter(events)).type == "transcript.text.delta"
        assert gateway.metric("nemostream_audio_seconds_total") - heard < 500


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "default"])
def test_their_names_mean_the_default_model(transcribe: Transcribe, model: str) -> None:
    assert transcribe(model=model, prompt="ignored", temperature=0.3, language="en").text == TEXT


def test_models_are_those_that_may_be_asked_for(gateway: GatewayProcess, transcribe: Transcribe) -> None:
    listed = [model.id for model in client(gateway.http).models.list()]
    assert listed == ["default"] and transcribe(model=listed[0]).text == TEXT
    assert client(gateway.http).models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError) as refused:
        client(gateway.http).models.retrieve("no/such")
    assert refused.value.code == "model_not_found"


BAD: dict[str, dict[str, Any]] = {
    "a format that there is not": {"response_format": "diarized_json"},
    "a stream of subtitles": {"response_format": "srt", "stream": True},
    "a temperature of 7": {"temperature": 7},
    "times of syllables": {"timestamp_granularities": ["syllable"]},
    "a model that there is not": {"model": "/etc/passwd"},
    "a language that is not spoken": {"language": "de"},
    "no sound file": {"file": ("x.mp3", b"PK\x03\x04 a zip")},
    "nothing": {"file": ("x.mp3", b"")},
}


@pytest.mark.parametrize("options", BAD.values(), ids=BAD)
def test_the_client_understands_what_is_wrong(transcribe: Transcribe, options: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        transcribe(**options)
    error = refused.value
    assert error.type == "invalid_request_error" and error.code in ("bad_request", "bad_data")
    assert isinstance(error.body, dict) and set(error.body) == {"message", "type", "param", "code"}
    assert 10 < len(error.body["message"]) < 400 and "\n" not in error.body["message"]


def test_other_errors_have_the_same_shape(gateway: GatewayProcess) -> None:
    url = f"{gateway.http}/v1/audio/transcriptions"
    for answer in (httpx.get(url), httpx.post(url), httpx.post(url, json={}), httpx.get(f"{gateway.http}/v1/models/x")):
        assert answer.status_code in (404, 405, 415)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_key_is_wanted_as_bearer(engine: Engine) -> None:
    async with serving(create_app(Settings(api_keys=("secret",)), engine)) as ws:
        url = f"{ws.replace('ws', 'http', 1)}/v1"
        with pytest.raises(openai.AuthenticationError):
            await openai.AsyncOpenAI(base_url=url, api_key="other", max_retries=0).models.list()
        known = openai.AsyncOpenAI(base_url=url, api_key="secret", max_retries=0)
        answer = await known.audio.transcriptions.create(file=path("music"), model="whisper-1")
        assert answer.text == TEXTS["music"]


def exchanges() -> list[dict[str, Any]]:
    return [json.loads(line) for line in KEPT.read_text().splitlines()]


@pytest.mark.parametrize("exchange", exchanges() if KEPT.is_file() else [], ids=lambda e: e["name"])
def test_what_the_client_sent_once_is_answered_as_it_was(gateway: GatewayProcess, exchange: dict[str, Any]) -> None:
    answer = send(gateway.http, exchange["request"])
    kept = exchange["response"]
    assert (answer.status_code, answer.headers["content-type"]) == (kept["status"], kept["content-type"])
    assert shape(answer.text) == shape(kept["body"])


def shape(text: str) -> str:
    """Figures apart: they depend on the processor's last bits."""
    return re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "0", text)


def record(url: str) -> list[dict[str, Any]]:
    """What the client says, with one clip."""
    asked: dict[str, dict[str, Any]] = {form: {"response_format": form} for form in ("json", "text", "srt", "vtt")}
    asked["verbose_json"] = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
    asked |= {"stream": {"stream": True}, "zip": {"file": ("x.zip", b"PK\x03\x04")}}
    with Recorder(url) as recorder:
        create = client(recorder.http).audio.transcriptions.create
        for options in asked.values():
            try:
                list(create(**{"file": path("music"), "model": "whisper-1", **options}))
            except openai.BadRequestError:
                pass
        client(recorder.http).models.list()
    return [{"name": n, **e} for n, e in zip([*asked, "models"], recorder.exchanges, strict=True)]


if __name__ == "__main__":
    with GatewayProcess() as running:
        KEPT.write_text("".join(json.dumps(one) + "\n" for one in record(running.http)))
    sys.exit(0)

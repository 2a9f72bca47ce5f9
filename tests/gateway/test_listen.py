"""/v1/listen, by a client that knows nothing of ours; and the dialect without a socket."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast
from uuid import UUID

import httpx2 as httpx
import numpy as np
import pytest
import websockets
from starlette.datastructures import QueryParams

from nemostream.protocol import NO_ENDPOINT, Endpointing, Event, Final, FinalReason, Interim, Started, Word
from nemostream_agent.gateway.dialect import Audio, End, Finalize, KeepAlive
from nemostream_agent.gateway.errors import Refusal
from nemostream_agent.gateway.listen import LOOK_MS, ListenDialect
from nemostream_agent.gateway.listen_query import LEAST_MS, listen_options
from nemostream_agent.gateway.session import Session
from tests.clips import TEXTS, clip
from tests.gateway.clients import Heard, by_file, pcm, read
from tests.gateway.process import GatewayProcess
from tests.gateway.sounds import CONTAINERS, encoded

PCM = "encoding=linear16&sample_rate=16000"
FINALIZE = '{"type": "Finalize"}'
CLOSE = '{"type": "CloseStream"}'
SILENCE = bytes(2 * 16_000)
"""A second."""


async def listen(gateway: GatewayProcess, query: str, *messages: str | bytes) -> Heard:
    """Say all of it, audio in messages of 20 ms; the last one ends the stream."""
    async with websockets.connect(f"{gateway.ws}/v1/listen?{query}") as socket:
        reading = asyncio.create_task(read(socket))
        try:
            for message in messages:
                size = 640 if message and isinstance(message, bytes) else len(message) or 1
                for begin in range(0, len(message) or 1, size):
                    await socket.send(message[begin : begin + size])
        except websockets.ConnectionClosed:
            pass  # refused: `read` knows how
        heard = await reading
        assert socket.response is not None
        for found in heard.messages:
            if found["type"] == "Results":
                assert found["metadata"]["request_id"] == socket.response.headers["dg-request-id"]
        return heard


def of(heard: Heard, kind: str) -> list[dict[str, Any]]:
    return [message for message in heard.messages if message["type"] == kind]


def best(result: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = result["channel"]["alternatives"][0]
    return found


def finals(heard: Heard) -> list[dict[str, Any]]:
    return [result for result in of(heard, "Results") if result["is_final"]]


def text(heard: Heard) -> str:
    return " ".join(filter(None, (best(final)["transcript"] for final in finals(heard))))


async def test_every_message_has_its_fields(gateway: GatewayProcess) -> None:
    query = f"{PCM}&model=nova-3&language=en-US&interim_results=true&vad_events=true&utterance_end_ms=1000&keyterm=bar"
    audio = pcm("monday") + 2 * SILENCE
    heard = await listen(gateway, query, '{"type": "KeepAlive"}', audio, FINALIZE, CLOSE)
    assert heard.code == 1000
    kinds = [message["type"] for message in heard.messages]
    assert set(kinds) == {"Results", "SpeechStarted", "UtteranceEnd", "Metadata"} and kinds[-1] == "Metadata"
    for result in of(heard, "Results"):
        assert set(result) == {
            *("type", "channel_index", "start", "duration", "is_final", "speech_final", "from_finalize", "channel"),
            "metadata",
        }
        assert result["channel_index"] == [0, 1]
        assert all(type(result[name]) is bool for name in ("is_final", "speech_final", "from_finalize"))
        assert set(result["channel"]) == {"alternatives"} and len(result["channel"]["alternatives"]) == 1
        assert set(best(result)) == {"transcript", "confidence", "words"}
        assert 0 <= best(result)["confidence"] <= 1
        assert best(result)["transcript"] == " ".join(word["punctuated_word"] for word in best(result)["words"])
        for word in best(result)["words"]:
            assert set(word) == {"word", "start", "end", "confidence", "punctuated_word"}
            assert result["start"] <= word["start"] < word["end"] <= result["start"] + result["duration"]
            assert 0 <= word["confidence"] <= 1 and word["word"] == word["punctuated_word"].lower()
        assert set(result["metadata"]) == {"request_id", "model_info", "model_uuid"}
        assert set(result["metadata"]["model_info"]) == {"name", "version", "arch"}
        assert UUID(result["metadata"]["model_uuid"])
    first = next(result for result in of(heard, "Results") if best(result)["words"])
    last = next(final for final in finals(heard) if final["speech_final"])
    (started,) = of(heard, "SpeechStarted")
    assert started == {"type": "SpeechStarted", "channel": [0, 1], "timestamp": best(first)["words"][0]["start"]}
    assert kinds.index("SpeechStarted") < heard.messages.index(first)
    (ended,) = of(heard, "UtteranceEnd")
    assert ended == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": best(last)["words"][-1]["end"]}
    assert heard.messages.index(ended) > heard.messages.index(last)
    metadata = heard.messages[-1]
    assert set(metadata) == {
        *("type", "transaction_key", "request_id", "sha256", "created", "duration", "channels", "models"),
        "model_info",
    }
    assert metadata["duration"] == len(audio) / 32_000 and metadata["channels"] == 1
    assert metadata["models"] == [first["metadata"]["model_uuid"]] == list(metadata["model_info"])


@pytest.mark.parametrize("name", sorted(TEXTS))
async def test_the_text_is_that_of_the_file(gateway: GatewayProcess, name: str) -> None:
    heard = await listen(gateway, PCM, pcm(name), CLOSE)
    assert text(heard) == TEXTS[name] == by_file(pcm(name))
    assert not [result for result in of(heard, "Results") if not result["is_final"]]  # by default there are none
    assert not of(heard, "SpeechStarted") and not of(heard, "UtteranceEnd")


@pytest.mark.parametrize("query", [PCM, f"{PCM}&endpointing=false"])
async def test_finals_tile_the_audio(gateway: GatewayProcess, query: str) -> None:
    audio = pcm("monday") + SILENCE + pcm("tomorrow") + SILENCE
    for messages in ([audio, FINALIZE, SILENCE], [audio], [pcm("monday"), FINALIZE, pcm("tomorrow")], [SILENCE]):
        found = finals(await listen(gateway, query, *messages, CLOSE))
        assert found[0]["start"] == 0
        for before, after in pairwise(found):
            assert after["start"] == pytest.approx(before["start"] + before["duration"])
        length = sum(len(message) for message in messages if isinstance(message, bytes)) / 32_000
        assert found[-1]["start"] + found[-1]["duration"] == pytest.approx(length)


async def test_each_finalize_is_answered_once_even_if_nothing_is_pending(gateway: GatewayProcess) -> None:
    query = f"{PCM}&endpointing=false"
    heard = await listen(gateway, query, FINALIZE, pcm("monday"), FINALIZE, FINALIZE, CLOSE)
    answers = [result for result in finals(heard) if result["from_finalize"]]
    assert [best(answer)["transcript"] for answer in answers] == ["", TEXTS["monday"], ""]
    assert [answer["speech_final"] for answer in answers] == [False, True, False]


async def test_an_empty_message_ends_the_stream(gateway: GatewayProcess) -> None:
    heard = await listen(gateway, PCM, pcm("monday"), b"")
    assert (text(heard), heard.code) == (TEXTS["monday"], 1000)
    assert heard.messages[-1]["type"] == "Metadata"


@pytest.mark.parametrize("endpointing", ["10", "25", "true"])
async def test_short_endpointing_does_not_cut_words(gateway: GatewayProcess, endpointing: str) -> None:
    heard = await listen(gateway, f"{PCM}&endpointing={endpointing}", SILENCE, pcm("tonight"), SILENCE, CLOSE)
    spoken = [final for final in finals(heard) if best(final)["words"]]
    assert [best(final)["transcript"] for final in spoken] == [TEXTS["tonight"]]
    assert spoken[0]["speech_final"]


async def test_one_utterance_end_for_each_long_gap(gateway: GatewayProcess) -> None:
    """As fast as it goes, so all but the last are known by the word behind them."""
    audio = pcm("monday") + 2 * SILENCE + pcm("tomorrow") + 2 * SILENCE
    for query in ("utterance_end_ms=1000", "utterance_end_ms=1000&endpointing=false"):
        heard = await listen(gateway, f"{PCM}&{query}", audio, CLOSE)
        spoken = [final for final in finals(heard) if best(final)["words"]]
        ends = [best(final)["words"][-1]["end"] for final in spoken]
        assert [ended["last_word_end"] for ended in of(heard, "UtteranceEnd")] == ends and len(ends) == 2
        assert heard.messages.index(of(heard, "UtteranceEnd")[0]) < heard.messages.index(spoken[1])
    assert not of(await listen(gateway, f"{PCM}&utterance_end_ms=5000", audio, CLOSE), "UtteranceEnd")


def linear32(samples: np.ndarray[Any, Any]) -> bytes:
    return ((samples * 32767).astype("<i4") << 16).tobytes()


async def test_linear32_in_two_channels_is_heard(gateway: GatewayProcess) -> None:
    data = linear32(np.repeat(clip("monday"), 2))
    heard = await listen(gateway, "encoding=linear32&sample_rate=16000&channels=2", data, CLOSE)
    assert text(heard) == TEXTS["monday"]


@pytest.mark.parametrize("kind", CONTAINERS)
async def test_without_an_encoding_it_is_a_container(gateway: GatewayProcess, kind: str) -> None:
    heard = await listen(gateway, "model=nova-2", encoded(kind, clip("monday")), CLOSE)
    assert text(heard) == TEXTS["monday"]
    assert heard.messages[-1]["duration"] == pytest.approx(len(clip("monday")) / 16_000, abs=0.2)


@pytest.mark.parametrize(
    ("query", "messages", "variant", "code"),
    [
        ("", [b"no audio " * 1000, CLOSE], "BadDataError", 1007),
        (PCM, ["hello"], "SchemaError", 1007),
        (PCM, ['{"type": "Configure"}'], "SchemaError", 1007),
        (PCM, ["[" * 100_000], "SchemaError", 1007),
        (f"{PCM}&model=unheard-of", [CLOSE], "BadRequestError", 1008),
        (f"{PCM}&language=de", [CLOSE], "BadRequestError", 1008),
    ],
)
async def test_errors_are_told_and_end_the_connection(
    gateway: GatewayProcess, query: str, messages: list[str | bytes], variant: str, code: int
) -> None:
    heard = await listen(gateway, query, *messages)
    (error,) = heard.messages
    assert set(error) == {"type", "variant", "description", "message"}
    assert (error["type"], error["variant"], heard.code) == ("Error", variant, code)
    assert heard.reason and error["description"].startswith(heard.reason)


async def test_a_client_that_vanishes_in_a_container_leaves_no_thread(gateway: GatewayProcess) -> None:
    def threads() -> int:
        with open(f"/proc/{gateway.process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Threads:"))

    await listen(gateway, "", encoded("ogg", clip("monday")), CLOSE)  # pools are filled
    before = threads()
    sockets = [await websockets.connect(f"{gateway.ws}/v1/listen") for _ in range(20)]
    for socket in sockets:
        await socket.send(encoded("ogg", clip("monday"))[:9000])
    async with asyncio.timeout(30):
        while threads() < before + 20:
            await asyncio.sleep(0.01)
        for socket in sockets:
            socket.transport.abort()
        while threads() > before:
            await asyncio.sleep(0.01)


async def test_a_recorded_file_is_answered_with_all_fields(gateway: GatewayProcess) -> None:
    data = encoded("wav", np.concatenate([clip("monday"), np.zeros(16_000, np.float32), clip("tomorrow")]))
    async with httpx.AsyncClient(base_url=gateway.http, timeout=60) as http:
        query = {"model": "nova-3", "language": "en", "utterances": "true", "detect_language": "true"}
        answer = await http.post("/v1/listen", params=query, content=data, headers={"Content-Type": "audio/wav"})
        plain = await http.post("/v1/listen", content=data)
    assert answer.status_code == plain.status_code == 200
    found = answer.json()
    assert set(found) == {"metadata", "results"} and set(found["results"]) == {"channels", "utterances"}
    (channel,) = found["results"]["channels"]
    (spoken,) = channel["alternatives"]
    assert channel["detected_language"] == "en"
    assert spoken["transcript"] == f"{TEXTS['monday']} {TEXTS['tomorrow']}"
    assert [word["punctuated_word"] for word in spoken["words"]] == spoken["transcript"].split()
    assert [one["transcript"] for one in found["results"]["utterances"]] == [TEXTS["monday"], TEXTS["tomorrow"]]
    about = found["metadata"]
    assert about["request_id"] == answer.headers["x-request-id"]
    assert about["sha256"] == hashlib.sha256(data).hexdigest() and about["channels"] == 1
    assert about["duration"] == pytest.approx((len(data) - 78) / 32_000, abs=0.01)
    assert set(plain.json()["results"]) == {"channels"}
    assert plain.json()["results"]["channels"] == [{"alternatives": [spoken]}]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [(b"garbage" * 1000, "audio/wav", 400), (b"", "audio/wav", 400), (b'{"url": "http://x"}', "application/json", 415)],
)
async def test_what_is_no_recorded_file_is_refused(
    gateway: GatewayProcess, content: bytes, kind: str, status: int
) -> None:
    async with httpx.AsyncClient(base_url=gateway.http) as http:
        answer = await http.post("/v1/listen", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status and set(answer.json()) == {"detail", "code"}


# --- without a socket ---


@dataclass
class Place:
    """What a dialect looks at of a session."""

    seconds: float = 0.0
    wall_time: float = 1.7e9
    started: Started = Started(1, 1, 1, "bundle", "en", 160, 1.7e9)  # noqa: RUF009


class Talk:
    """A dialect whose clock and audio are moved by hand."""

    def __init__(self, query: str) -> None:
        self.now, self.place = 0.0, Place()
        self.dialect = ListenDialect(QueryParams(query), "id", clock=lambda: self.now)
        self.dialect.opened(self.session)

    @property
    def session(self) -> Session:
        return cast(Session, self.place)

    def told(self, messages: Sequence[str]) -> list[str]:
        """The types, of finals their flags."""
        found = [json.loads(message) for message in messages]
        return [m["type"] + "!" * m.get("is_final", False) + "." * m.get("speech_final", False) for m in found]

    def say(self, kind: type[Event], *words: tuple[float, float], reason: FinalReason = "endpoint") -> list[str]:
        made = tuple(Word("word", int(16_000 * a), int(16_000 * b), 0.5) for a, b in words)
        said = " ".join(word.text for word in made)
        if kind is Interim:
            return self.told(self.dialect.event(Interim(1, 1, 1, said, made)))
        ends = (made[0].start_sample, made[-1].end_sample) if made else (0, 0)
        return self.told(self.dialect.event(Final(1, 1, 1, said, made, *ends, reason)))

    def pass_time(self, seconds: float) -> list[str]:
        self.now += seconds
        self.place.seconds += seconds
        return self.told(self.dialect.heard(self.session))


def test_utterance_end_comes_while_audio_goes_on() -> None:
    talk = Talk("utterance_end_ms=1000&endpointing=400")
    talk.place.seconds = 1.4
    assert talk.say(Final, (0.5, 1.0)) == ["Results!."]
    assert talk.pass_time(0.6 + (LOOK_MS + 160) / 1000 - 0.01) == []
    assert talk.pass_time(0.02) == ["UtteranceEnd"]
    assert talk.pass_time(9.0) == []


def test_no_utterance_end_while_somebody_speaks_or_without_audio() -> None:
    talk = Talk("utterance_end_ms=1000&endpointing=400")
    talk.say(Final, (0.5, 1.0))
    talk.say(Interim, (1.5, 1.8))
    assert talk.pass_time(9.0) == []
    talk = Talk("utterance_end_ms=1000")
    talk.say(Final, (0.5, 1.0))
    talk.now += 9.0
    assert talk.told(talk.dialect.heard(talk.session)) == []


def test_an_interim_that_is_taken_back_ends_speech_and_not_the_wait_for_silence() -> None:
    talk = Talk("utterance_end_ms=1000&vad_events=true")
    assert talk.say(Final, (0.5, 1.0)) == ["SpeechStarted", "Results!."]
    assert talk.say(Interim, (1.5, 1.8)) == ["SpeechStarted"]
    assert talk.say(Final) == ["Results!."]
    assert talk.pass_time(9.0) == ["UtteranceEnd"]


@pytest.mark.parametrize(("gap", "ends"), [(0.99, []), (1.0, ["UtteranceEnd"])])
def test_a_word_behind_the_gap_ends_the_utterance_first(gap: float, ends: list[str]) -> None:
    talk = Talk("utterance_end_ms=1000&interim_results=true")
    talk.say(Final, (0.5, 1.0))
    assert talk.say(Interim, (1.0 + gap, 3.0)) == [*ends, "Results"]
    assert talk.say(Final, (1.0 + gap, 3.0)) == ["Results!."]


def test_a_pause_that_is_as_long_as_the_gap_is_one() -> None:
    assert Talk("utterance_end_ms=500&endpointing=600").say(Final, (0.5, 1.0)) == ["Results!.", "UtteranceEnd"]
    off = Talk("utterance_end_ms=1000&endpointing=false")
    assert off.say(Final, (0.5, 1.0)) == ["Results!", "UtteranceEnd"]


def test_a_segment_that_has_grown_too_long_is_not_the_end_of_speech() -> None:
    talk = Talk("vad_events=true")
    assert talk.say(Final, (0.5, 15.0), reason="limit") == ["SpeechStarted", "Results!"]
    assert talk.say(Final, (15.0, 16.0)) == ["Results!."]


def test_messages_of_a_client() -> None:
    dialect = ListenDialect(QueryParams(""), "id")
    assert dialect.read(b"ab") == Audio(b"ab") and dialect.read(b"") == End() == dialect.read(CLOSE)
    assert dialect.read('{"type": "Finalize", "channel": 0}') == Finalize()
    assert dialect.read('{"type": "KeepAlive"}') == KeepAlive()


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("", "encoding", None),
        ("encoding=opus", "encoding", None),
        ("encoding=linear16", "encoding", "pcm16"),
        ("encoding=linear32", "encoding", "pcm32"),
        ("encoding=mulaw&sample_rate=8000", "sample_rate", 8000),
        ("model=nova-2-general", "model", None),
        ("model=2-general-nova", "model", None),
        ("model=enhanced", "model", None),
        ("model=flux-general-en", "model", None),
        ("model=novak", "model", "novak"),
        ("language=multi", "language", None),
        ("language=en-US", "language", "en-US"),
        ("", "endpointing", None),
        ("endpointing=true", "endpointing", None),
        ("endpointing=false", "endpointing", NO_ENDPOINT),
        ("endpointing=0", "endpointing", NO_ENDPOINT),
        ("endpointing=10", "endpointing", Endpointing(blank_ms=LEAST_MS)),
        ("endpointing=1500", "endpointing", Endpointing(blank_ms=1500)),
        ("endpointing=false&utterance_end_ms=1000", "endpointing", Endpointing(blank_ms=1000)),
        ("keyterm=a+phrase,+two&keyterm=b", "keyterms", ("a phrase, two", "b")),
        ("keywords=good:2.5&keywords=bad:-1&keywords=plain", "keyterms", ("good", "plain")),
        ("diarize=true&smart_format=maybe&punctuate=&tag=x", "model", None),
    ],
)
def test_what_parameters_mean(query: str, field: str, value: object) -> None:
    assert getattr(listen_options(QueryParams(query)), field) == value


@pytest.mark.parametrize(
    "query",
    [
        *("endpointing=soon", "endpointing=-1", "utterance_end_ms=long", "interim_results=perhaps", "keywords=a:b"),
        *("encoding=speex", "sample_rate=fast", "channels=-1", "vad_events=2"),
    ],
)
def test_a_parameter_that_means_nothing_is_refused(query: str) -> None:
    with pytest.raises(Refusal) as refused:
        ListenDialect(QueryParams(query), "id")
    assert refused.value.status == 400

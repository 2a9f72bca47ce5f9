"""/ws, by a client that knows nothing of ours."""

from __future__ import annotations

import json
import time

import av
import numpy as np
import pytest
import soxr
import websockets

from tests.clips import TEXTS, clip
from tests.gateway.clients import by_file, pcm, read, ws
from tests.gateway.process import GatewayProcess


@pytest.mark.parametrize("size", [333, 640, 1 << 20], ids=lambda n: f"{n} bytes a message")
async def test_every_message_has_its_fields_and_the_text_is_that_of_the_clip(
    gateway: GatewayProcess, size: int
) -> None:
    before = time.time()
    heard = await ws(f"{gateway.ws}/ws", pcm("music"), size)
    assert heard.code == 1000
    *found, end = heard.messages
    assert end == "END"
    for one in found:
        assert set(one) == {"text", "is_final", "timestamp"}
        assert isinstance(one["text"], str) and isinstance(one["is_final"], bool)
        assert before <= one["timestamp"] <= time.time()
    assert [one["is_final"] for one in found].count(True) == 1 and found[-1]["is_final"]
    assert heard.text == TEXTS["music"]


async def test_text_comes_while_the_sentence_is_being_said(gateway: GatewayProcess) -> None:
    data = pcm("music")
    async with websockets.connect(f"{gateway.ws}/ws") as socket:
        await socket.send(data[: len(data) // 2])
        first = json.loads(await socket.recv())
        assert first["is_final"] is False and TEXTS["music"].startswith(first["text"].split()[0])
        await socket.send(data[len(data) // 2 :])
        await socket.send("END")
        assert (await read(socket)).text == TEXTS["music"]


def mulaw(samples: np.ndarray) -> bytes:
    """By FFmpeg's encoder."""
    codec = av.CodecContext.create("pcm_mulaw", "w")
    codec.sample_rate, codec.format, codec.layout = 8000, "s16", "mono"
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def at(rate: int, name: str) -> np.ndarray:
    return (soxr.resample(clip(name), 16_000, rate) * 32767).astype(np.int16)


async def test_encoding_rate_and_channels_are_query_parameters(gateway: GatewayProcess) -> None:
    ways = {
        "sample_rate=48000": at(48_000, "music").tobytes(),
        "sample_rate=16000&channels=2": np.repeat(at(16_000, "music"), 2).tobytes(),
        "encoding=float32": clip("music").tobytes(),
    }
    for query, data in ways.items():
        assert (await ws(f"{gateway.ws}/ws?{query}", data)).text == TEXTS["music"], query
    telephone = await ws(f"{gateway.ws}/ws?encoding=mulaw&sample_rate=8000", mulaw(at(8000, "music")))
    # The line has half the band: most words are there.
    assert len(set(telephone.text.split()) & set(TEXTS["music"].split())) >= 4


async def test_chunk_size_language_and_keyterms_are_query_parameters(gateway: GatewayProcess) -> None:
    heard = await ws(
        f"{gateway.ws}/ws?model=default&chunk_ms=1120&language=en-GB&keyterms=garage,kitchen", pcm("music")
    )
    assert heard.text == TEXTS["music"]
    for query, code, what in (
        ("chunk_ms=100", 1008, "100"),
        ("chunk_ms=soon", 1008, "chunk_ms"),
        ("language=fr", 1008, "fr"),
        ("encoding=opus2", 1008, "encoding"),
        ("sample_rate=5", 1007, "5 Hz"),
        ("channels=99", 1007, "channels"),
        ("model=/etc/passwd", 1008, "model"),
        ("decoder=beam", 1008, "decoder"),
        ("keyterms=" + "x" * 200, 1008, "term"),
    ):
        refused = await ws(f"{gateway.ws}/ws?{query}", b"")
        assert refused.code == code, query
        assert what in refused.reason.replace("term", "keyterm") if what == "keyterm" else what in refused.reason, (
            refused
        )
        assert not [m for m in refused.messages if m == "END"]


async def test_segments_end_as_the_client_asks(gateway: GatewayProcess) -> None:
    quiet = bytes(2 * 16_000 * 2)
    data = pcm("music") + quiet + pcm("monday") + quiet
    apart = await ws(f"{gateway.ws}/ws", data)
    joined = await ws(f"{gateway.ws}/ws?endpointing_ms=0", data)
    count = [sum(m["is_final"] for m in heard.messages if m != "END") for heard in (apart, joined)]
    assert count == [2, 1]


async def test_minutes_sent_at_once_wait_for_the_engine_and_lose_nothing(gateway: GatewayProcess) -> None:
    """Far beyond what a live stream may be ahead of its steps: the gateway reads no faster than the engine runs."""
    quiet = bytes(2 * 16_000 * 2)
    once = pcm("music") + quiet
    heard = await ws(f"{gateway.ws}/ws", once * 20, 64_000)
    assert heard.code == 1000, heard.reason
    assert heard.text == by_file(once * 20)
    assert len(heard.text.split()) > 100

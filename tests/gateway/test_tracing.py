"""Traces: a collector hears of every stream, and of nothing that was said in it."""

from __future__ import annotations

import secrets
from typing import Any

import httpx2 as httpx
import pytest
import websockets
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.clips import TEXTS
from tests.gateway.clients import read
from tests.gateway.guarded import GARBAGE, MUSIC, Guarded, quotes, say


def facts(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


async def traced(watched: Guarded, data: bytes | str) -> tuple[Span, str]:
    """The span of a stream whose client began the trace; and the client's own span."""
    trace_id, own = secrets.token_hex(16), secrets.token_hex(8)
    await say(f"{watched.gateway.ws}/ws", watched.key, data, traceparent=f"00-{trace_id}-{own}-01")
    (span,) = watched.receiver.wait_for(trace_id)
    return span, own


async def test_a_stream_is_a_span_in_the_trace_of_its_client(watched: Guarded) -> None:
    span, own = await traced(watched, MUSIC)
    assert span.name == "stream" and span.parent_span_id.hex() == own
    assert span.start_time_unix_nano < span.end_time_unix_nano
    found = facts(span)
    assert (found["nemostream.protocol"], found["nemostream.finals"]) == ("ws", 1)
    assert found["nemostream.seconds"] == pytest.approx(len(MUSIC) / 32_000, abs=0.01)
    assert watched.receiver.services == {"nemostream-gateway"}


async def test_an_error_has_its_kind_there_and_no_words(watched: Guarded) -> None:
    span, _ = await traced(watched, GARBAGE)
    assert span.status.code == Status.STATUS_CODE_ERROR and span.status.message == "bad_data"
    assert not span.events, "an exception's message may quote the client"


async def test_no_span_holds_text_or_a_key(watched: Guarded) -> None:
    async with websockets.connect(f"{watched.gateway.ws}/ws?api_key={watched.key}") as socket:
        await socket.send("END")
        await read(socket)
    httpx.get(f"{watched.gateway.http}/health?access_token={watched.key}").raise_for_status()
    await traced(watched, MUSIC)
    await traced(watched, GARBAGE)
    told = b"".join(watched.receiver.bodies)
    assert not quotes(told) and watched.key.encode() not in told
    assert quotes(TEXTS["music"]) and quotes(GARBAGE), "it would be seen"

"""The log: lines for machines, with nothing in them that was said, and nothing that opens a door."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx2 as httpx
import pytest
import websockets

from nemostream_agent.gateway import logs
from tests.clips import TEXTS, path
from tests.gateway.guarded import GARBAGE, MUSIC, NOBODY, Guarded, guarded, quotes, say


def lines(log: str, message: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    return [line for line in found if not message or line["message"] == message]


async def test_each_line_is_an_object_and_a_stream_has_one_that_names_the_request(watched: Guarded) -> None:
    heard, request_id = await say(f"{watched.gateway.ws}/ws", watched.key, MUSIC)
    assert heard.text == TEXTS["music"]
    for line in lines(watched.gateway.log()):
        assert {"time", "level", "logger", "message"} <= set(line)
    (line,) = [one for one in lines(watched.gateway.log(), "stream") if one["request_id"] == request_id]
    facts = {name: line[name] for name in ("client", "protocol", "outcome", "finals")}
    assert facts == {"client": "key:environment-1", "protocol": "ws", "outcome": "ok", "finals": 1}
    assert line["seconds"] == pytest.approx(len(MUSIC) / 32_000, abs=0.01)


async def test_no_text_and_no_credential_stands_in_it_whatever_happens(watched: Guarded) -> None:
    url = f"{watched.gateway.ws}/ws"
    await say(url, watched.key, MUSIC)
    await say(url, watched.key, GARBAGE)
    await say(f"{url}?access_token=a-token-that-is-wrong&model={GARBAGE.replace(' ', '%20')}", watched.key, b"")
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(f"{url}?access_token=a-token-that-is-wrong")
    async with websockets.connect(f"{url}?api_key={watched.key}") as socket:
        await socket.send(MUSIC)
        await socket.recv()
        socket.transport.abort()
    log = watched.gateway.log()
    assert lines(log, "stream")
    assert not quotes(log)
    assert watched.key not in log and "a-token-that-is-wrong" not in log


async def test_finals_stand_in_it_where_that_is_asked_for() -> None:
    """There is no collector where the traces should go, and that stops nothing."""
    with guarded("--log-text", collector=NOBODY) as asked:
        heard, request_id = await say(f"{asked.gateway.ws}/ws", asked.key, MUSIC)
        assert heard.text == TEXTS["music"]
        finals = [one for one in lines(asked.gateway.log(), "final") if one["request_id"] == request_id]
        assert " ".join(one["text"] for one in finals) == heard.text
        assert all(0 <= one["start"] < one["end"] for one in finals)
        answer = httpx.post(
            f"{asked.gateway.http}/transcribe",
            headers={"X-API-Key": asked.key},
            files={"file": path("monday").read_bytes()},
            timeout=60,
        )
        assert answer.json()["text"] == TEXTS["monday"] == lines(asked.gateway.log(), "final")[-1]["text"]
        assert asked.key not in asked.gateway.log()
        asked.gateway.terminate()
        assert asked.gateway.wait() == 0


def test_as_text_a_line_tells_as_much_and_nobody_can_begin_one() -> None:
    formatter = logs._Plain(logs.FIELDS)
    record = logging.LogRecord("nemostream.gateway", logging.INFO, "", 0, "stream", (), None)
    record.client, record.seconds = "livekit:eve\n2026 ERROR all is lost", 1.5
    line = formatter.format(record)
    assert "\n" not in line
    assert line.endswith(r"INFO nemostream.gateway stream client='livekit:eve\n2026 ERROR all is lost' seconds=1.5")

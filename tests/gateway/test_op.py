"""The protocol of init, frames of 20 ms and close, by a client that knows nothing of ours."""

from __future__ import annotations

import json
import time
from typing import Any

import websockets

from nemostream.protocol import NO_ENDPOINT
from tests.clips import TEXTS
from tests.gateway.clients import by_file, pcm
from tests.gateway.process import GatewayProcess

FRAME = 640
QUIET = bytes(16_000 * 2)


async def say(socket: websockets.ClientConnection, sid: str, data: bytes, rate: int = 16_000) -> list[dict[str, Any]]:
    """One stream; what was answered up to its final."""
    await socket.send(json.dumps({"op": "init", "sid": sid, "sr": rate}))
    for begin in range(0, len(data), FRAME):
        await socket.send(data[begin : begin + FRAME])
    await socket.send(json.dumps({"op": "close", "sid": sid}))
    answers = []
    while not answers or not answers[-1]["final"]:
        answers.append(json.loads(await socket.recv()))
    return answers


async def test_a_close_answers_with_all_that_was_said(gateway: GatewayProcess) -> None:
    before = time.time() * 1000
    async with websockets.connect(f"{gateway.ws}/") as socket:
        answers = await say(socket, "call-1", pcm("music") + 2 * QUIET + pcm("monday"))
    for one in answers:
        assert set(one) == {"op", "sid", "text", "final", "ts"}
        assert (one["op"], one["sid"]) == ("interim", "call-1")
        assert isinstance(one["ts"], int) and before - 1 <= one["ts"] <= time.time() * 1000
    # Nothing but the close ends the text: silence between two sentences does not.
    assert [one["final"] for one in answers] == [False] * (len(answers) - 1) + [True]
    assert answers[-1]["text"] == f"{TEXTS['music']} {TEXTS['monday']}"


async def test_streams_follow_one_another_on_one_connection(gateway: GatewayProcess) -> None:
    async with websockets.connect(gateway.ws) as socket:
        for sid in ("a", "b"):
            answers = await say(socket, sid, pcm("tonight"))
            assert {one["sid"] for one in answers} == {sid}
            assert answers[-1]["text"] == TEXTS["tonight"]


async def test_what_was_long_ago_stays_in_the_text(gateway: GatewayProcess) -> None:
    """The engine closes segments of 15 s; a client of this protocol does not see that."""
    said = (pcm("music") + QUIET) * 8
    async with websockets.connect(gateway.ws) as socket:
        answers = await say(socket, "long", said)
    assert answers[-1]["text"] == by_file(said, NO_ENDPOINT)
    lengths = [len(one["text"].split()) for one in answers]
    assert all(after >= before - 3 for before, after in zip(lengths, lengths[1:], strict=False))


async def test_with_endpointing_each_segment_is_final(gateway: GatewayProcess) -> None:
    async with websockets.connect(f"{gateway.ws}/?endpointing_ms=400") as socket:
        await socket.send(json.dumps({"op": "init", "sid": 7, "sr": 16_000}))
        for clip in ("music", "monday"):
            await socket.send(pcm(clip) + 2 * QUIET)
        await socket.send(json.dumps({"op": "close", "sid": 7}))
        finals = []
        while len(finals) < 3:
            answer = json.loads(await socket.recv())
            finals += [answer["text"]] if answer["final"] else []
    assert finals == [TEXTS["music"], TEXTS["monday"], ""]


async def test_what_means_nothing_is_an_error_and_the_end(gateway: GatewayProcess) -> None:
    init = json.dumps({"op": "init", "sid": "x", "sr": 16_000})
    for sent, code in (
        ([b"\0\0"], 1007),
        (["hello"], 1007),
        (['{"op": "sing"}'], 1007),
        (["[" * 100_000], 1007),
        (['{"op": "init", "sr": "fast"}'], 1007),
        (['{"op": "init", "sid": "x", "sr": 3}'], 1007),
        ([init, init], 1007),
    ):
        async with websockets.connect(gateway.ws) as socket:
            for message in sent:
                await socket.send(message)
            answer = json.loads(await socket.recv())
            assert (answer["op"], answer["code"]) == ("error", "bad_data"), sent
            assert answer["message"]
            await socket.wait_closed()
            assert socket.close_code == code

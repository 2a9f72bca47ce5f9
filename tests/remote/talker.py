"""A client process with many streams, as a media process is: python -m tests.remote.talker SOCKET STREAMS SECONDS.

Speaks the test clips into all of its streams in real time, flushes, closes, and prints one JSON object: the joined text
of every stream, and the seconds from flush to final.
"""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nemostream.protocol import NO_ENDPOINT, Close, Ended, Event, Failed, Final, Flush, Open, Push, Refused
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Place
from tests.proof.speech import sentences

BLOCK, CHUNK_MS = 1280, 160


def talk(place: Place, streams: int, seconds: float) -> dict[str, object]:
    engine = RemoteEngine(Shared(place, spawn=False))
    heard: queue.Queue[tuple[float, Event]] = queue.Queue()

    def take(events: Sequence[Event]) -> None:
        for event in events:
            heard.put((time.monotonic(), event))

    connection = engine.connect(take)
    connection.send(*(Open(i, chunk_ms=CHUNK_MS, endpointing=NO_ENDPOINT) for i in range(streams)))
    speech = [sentences(i % 5, seconds)[: int(seconds * 16_000)] for i in range(min(5, streams))]
    began = time.monotonic()
    for start in range(0, int(seconds * 16_000), BLOCK):
        for phase in range(4):  # not all at the same moment
            time.sleep(max(0.0, began + start / 16_000 + phase * 0.02 - time.monotonic()))
            connection.send(*(Push(i, speech[i % 5][start : start + BLOCK], start) for i in range(phase, streams, 4)))
    flushed = time.monotonic()
    for i in range(streams):
        connection.send(Flush(i, 1), Close(i))
    texts: dict[int, list[str]] = {i: [] for i in range(streams)}
    waits: list[float] = []
    left = set(texts)
    while left:
        at, event = heard.get(timeout=60)
        assert not isinstance(event, (Failed, Refused)), event
        if isinstance(event, Final):
            texts[event.stream].append(event.text)
            if event.flush_id:
                waits.append(at - flushed)
        elif isinstance(event, Ended):
            left.remove(event.stream)
    engine.close()
    return {"texts": [" ".join(t for t in x if t) for x in texts.values()], "flush_to_final": sorted(waits)}


if __name__ == "__main__":
    print(json.dumps(talk(Place(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3]))))

"""Half an hour of streams that join and leave, with a fault every 20 seconds: no text suffers and nothing grows."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Sequence

import numpy as np
import psutil

from nemostream.protocol import Close, Ended, Event, Failed, Final, Open, Push, Refused
from nemostream.remote import RemoteEngine, Shared
from nemostream.rendezvous import Place
from tests.conftest import DATA, converted
from tests.engine.conftest import offline, utterance
from tests.engine.driver import load
from tests.remote.raw import Raw
from tests.serving import engines_at, new_place
from tests.words import changes

SOURCES = ["plugin/nemostream/*.py", "plugin/nemostream/encoders/*.py"]
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
STREAMS, BLOCK, FAULT_EVERY, CHUNK_MS = 8, 1280, 20.0, 160
POOL = 40


def run() -> dict[str, object]:
    with new_place() as place:
        return disturbed(place)


def disturbed(place: Place) -> dict[str, object]:
    """Streams in real time, which join and leave, and their engine."""
    path = converted(DATA / "toy.nemo").path
    model = load(path, "int8")
    speech = [utterance(seed, 8) for seed in range(POOL)]
    expected = [offline(model, samples, chunk_ms=CHUNK_MS) for samples in speech]
    engine = RemoteEngine(Shared(place))
    heard: queue.Queue[Event] = queue.Queue()

    def take(events: Sequence[Event]) -> None:
        for event in events:
            heard.put(event)

    connection = engine.connect(take)
    engine.load(str(path))
    rng = np.random.default_rng(0)
    alive: dict[int, list[int]] = {}  # stream: which utterance, blocks sent
    spoken: dict[int, int] = {}
    texts: dict[int, list[str]] = {}
    paused: dict[int, int] = {}
    opened = finished = reported = cut = 0
    faults: dict[str, int] = {}
    mine: list[tuple[int, int, int]] = []
    engines: list[tuple[int, int, int]] = []
    began = time.monotonic()
    next_fault = began + FAULT_EVERY
    tick = 0
    while (running := time.monotonic() - began < MINUTES * 60) or spoken:
        tick += 1
        time.sleep(max(0.0, began + tick * BLOCK / 16_000 - time.monotonic()))
        while running and len(alive) < STREAMS and rng.random() < 0.3:
            opened += 1
            alive[opened] = [int(rng.integers(POOL)), 0]
            spoken[opened], texts[opened] = alive[opened][0], []
            connection.send(Open(opened, model=str(path), chunk_ms=CHUNK_MS))
        for stream, state in list(alive.items()):
            which, at = state
            part = speech[which][at * BLOCK : (at + 1) * BLOCK]
            if len(part):
                connection.send(Push(stream, part, at * BLOCK))
                state[1] += 1
            else:
                connection.send(Close(stream))
                del alive[stream]
        while not heard.empty():
            event = heard.get()
            assert not isinstance(event, (Failed, Refused)), event
            if isinstance(event, Final) and event.text:
                texts[event.stream].append(event.text)
                if event.reason == "idle":
                    paused[event.stream] = paused.get(event.stream, 0) + 1
                reported += not event.whole
            elif isinstance(event, Ended):
                wanted = expected[spoken.pop(event.stream)].split()
                got = " ".join(texts.pop(event.stream)).split()
                pauses = paused.pop(event.stream, 0)
                # This process itself may be kept from the CPU: a source that pauses in a word is heard to do so.
                lost, added = changes(wanted, got)
                assert lost <= pauses and added <= 2 * pauses, (got, wanted, pauses)
                cut += bool(pauses)
                finished += 1
        if running and time.monotonic() >= next_fault:
            engines += [counts(process) for process in engines_at(place)]
            mine.append(counts(psutil.Process()))
            name = FAULTS[len(mine) % len(FAULTS)]
            threading.Thread(target=fault, args=(name, place), daemon=True).start()
            faults[name] = faults.get(name, 0) + 1
            next_fault += FAULT_EVERY
    engine.close()
    early, late = mine[len(mine) // 5], mine[-1]
    assert late[0] - early[0] < 30_000, f"this process grew by {late[0] - early[0]} kB"
    # A fault may be under way, on a thread and a connection of its own.
    assert all(abs(a - b) <= 2 for a, b in zip(late[1:], early[1:], strict=True)), (early, late)
    assert max(e[1] for e in engines) <= min(e[1] for e in engines) + 4, "file handles of the engine"
    assert max(e[2] for e in engines) <= min(e[2] for e in engines) + 4, "threads of the engine"
    return {
        "minutes": MINUTES,
        "streams": finished,
        "faults": faults,
        "streams_this_process_paused_in": cut,
        "other_streams_whose_text_differs": 0,
        "finals_that_report_a_possible_loss": reported,
        "client_kb_handles_threads_early_late": [early, late],
        "engine_kb_handles_threads_min_max": [[f(e[i] for e in engines) for i in range(3)] for f in (min, max)],
    }


FAULTS = ("engine stopped for 3 s", "client that vanishes", "garbage", "engine ended", "engine killed")


def fault(name: str, place: Place) -> None:
    for process in engines_at(place):
        if name == "engine killed":
            process.kill()
        elif name == "engine ended":
            process.terminate()
        elif name == "engine stopped for 3 s":
            process.suspend()
            threading.Timer(3.0, os.kill, (process.pid, signal.SIGCONT)).start()
        elif name == "client that vanishes":
            with Raw(place) as raw:
                raw.tell(*(Open(i, chunk_ms=CHUNK_MS) for i in range(4)), Push(1, np.ones(50_000, np.float32), 0))
        else:
            with Raw(place) as raw:
                raw.send(b"\x20\0\0\0" + os.urandom(32))


def counts(process: psutil.Process) -> tuple[int, int, int]:
    """Resident kB, file handles, threads."""
    return process.memory_info().rss >> 10, process.num_fds(), process.num_threads()

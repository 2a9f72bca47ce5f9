"""Four client processes and one engine with the embedded model: as many live streams as this machine carries."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from nemostream.probe import probe
from tests.serving import EngineProcess

SOURCES = ["plugin/nemostream/*.py", "plugin/nemostream/encoders/*.py", "tests/remote/talker.py"]
CLIENTS, SECONDS, CHUNK_MS = 4, 12.0, 160
SWEEP = (4, 8, 16, 24, 32, 48)
"""Streams of each client."""


def run() -> dict[str, object]:
    """Streams speak in real time in 160 ms chunks; each flushes at the end. A number of streams is carried if every
    flush is answered within a second of having been asked for, all at once."""
    rows: list[dict[str, float]] = []
    for streams in SWEEP:
        with EngineProcess("--max-streams", str(CLIENTS * streams)) as process:
            process.engine().load()
            command = [sys.executable, "-m", "tests.remote.talker"]
            command += [str(process.place.socket), str(streams), str(SECONDS)]
            clients = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CLIENTS)]
            outputs = [client.communicate()[0] for client in clients]
            stats = probe(process.place)
        if any(client.returncode for client in clients) or stats is None:
            break
        answers = [json.loads(output) for output in outputs]
        waits = sorted(w for answer in answers for w in answer["flush_to_final"])
        texts = {tuple(answer["texts"][i::5]) for answer in answers for i in range(5)}
        rows.append(
            {
                "streams": CLIENTS * streams,
                "mean_batch": round(stats["mean_batch"], 1),
                "flush_to_final_median": round(waits[len(waits) // 2], 3),
                "flush_to_final_max": round(waits[-1], 3),
                "texts_that_differ_among_equal_streams": sum(len(set(t)) - 1 for t in texts if t),
            }
        )
        print(rows[-1], flush=True)
        if waits[-1] > 1.0:
            break
    carried = [row for row in rows if row["flush_to_final_max"] <= 1.0]
    assert carried and carried[-1]["mean_batch"] > 8, rows
    return {"cores": os.cpu_count(), "carried": carried[-1]["streams"], "rows": rows}

"""How many streams an engine carries: paced streams in real time, against `nemostream serve` in a process of its own.

python -m bench.engine --streams 8,16,32 --chunk-ms 160              # a table of what becomes of 8, 16 and 32 streams
python -m bench.engine --slo --chunk-ms 80,160                       # the most streams that are answered in time
python -m bench.engine --batches 1,2,4,8 --uncapped --chunk-ms 160   # what a step costs, without pacing
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.engine import batches, models, report
from bench.engine.audio import TICK_MS, Load
from bench.engine.measure import Meter
from bench.engine.row import Row
from bench.engine.slo import most_streams
from nemostream.engine_config import EngineConfig
from nemostream.errors import NemostreamError
from nemostream.models.bundle import load_bundle


def numbers(text: str) -> list[int]:
    """ "8,16" -> [8, 16]; every one above 0."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers above 0, as 8,16,32")
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a name, a bundle folder or a .nemo; default: the embedded model")
    parser.add_argument("--random", metavar="SHAPE", help="a random model of this shape (bench/random_model.py)")
    parser.add_argument("--encoder", choices=("onnx", "null"), default="onnx", help="null: all but the model")
    parser.add_argument("--precision", choices=("int8", "fp32"))
    parser.add_argument("--threads", type=int, help="of the encoder; default: one per core")
    parser.add_argument("--streams", type=numbers, default=[8, 16, 32])
    parser.add_argument("--chunk-ms", type=numbers, default=[160])
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of audio for each stream; the first 2 do not count"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--clients", type=int, default=2, help="processes that send the audio")
    parser.add_argument("--block-ms", type=int, help="audio of one push; default: 80, or the chunk if that is shorter")
    parser.add_argument(
        "--flush-seconds", type=float, default=0.0, help="between a stream's flushes; 0: at its end only"
    )
    parser.add_argument("--compared", type=int, default=16, help="streams of a row whose tokens are compared; 0: all")
    parser.add_argument("--local", action="store_true", help="the engine in the client's process, no socket")
    parser.add_argument("--slo", action="store_true", help="search for the most streams instead of a sweep")
    parser.add_argument("--batches", type=numbers, help="sizes of a batch to measure in process, without pacing")
    parser.add_argument("--uncapped", action="store_true", help="no step cap: what --batches measures")
    parser.add_argument("--steps", type=int, default=40, help="of each batch size")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args(given)
    if options.batches and not options.uncapped:
        parser.error("--batches measures steps without the cap on their time; say so with --uncapped")
    for chunk_ms in options.chunk_ms:
        block_ms = options.block_ms or min(80, chunk_ms)
        if block_ms % TICK_MS or chunk_ms % block_ms:
            parser.error(f"chunks of {chunk_ms} ms are not whole blocks of {block_ms} ms, a multiple of {TICK_MS}")
    if min(options.rounds, options.clients, options.steps - batches.SETTLED) < 1 or options.seconds < 3:
        parser.error("at least 1 round, 1 client, 3 steps and 3 seconds are needed")
    return options


def main(given: Sequence[str] | None = None) -> None:
    """Run the command; what goes wrong is one sentence on standard error and exit status 1."""
    options = arguments(given)
    try:
        path = models.bundle(options.model, options.random)
        held = load_bundle(path).info.precisions
        head = {
            "command": f"python -m bench.engine {' '.join(given or sys.argv[1:])}",
            "machine": report.machine(),
            "model": options.random or options.model or path.name,
            "encoder": options.encoder,
            "precision": options.precision or ("int8" if "int8" in held else held[0]),
        }
        if options.batches:
            _batches(options, path, head, "fp32" if "fp32" in held else held[0])
        else:
            _streams(options, path, head)
    except (NemostreamError, ValueError, RuntimeError, OSError) as error:
        print(f"bench.engine: {error}", file=sys.stderr)
        sys.exit(1)


def _streams(options: argparse.Namespace, path: Path, head: dict[str, Any]) -> None:
    engine = EngineConfig(str(path), options.precision, options.threads, encoder=options.encoder)
    meter = Meter(path, engine, options.clients, options.local, options.compared)
    print(report.heading(), flush=True)
    rows: list[Row] = []

    def measure(chunk_ms: int, streams: int, round_: int = 0) -> Row:
        block_ms = options.block_ms or min(80, chunk_ms)
        noise = options.encoder == "null"
        load = Load(streams, chunk_ms, block_ms, options.seconds, options.flush_seconds, noise)
        rows.append(meter.row(load, round_))
        print(report.line(rows[-1]), flush=True)
        if rows[-1].why:
            print(f"bench.engine: {rows[-1].why}", file=sys.stderr)
        return rows[-1]

    if options.slo:
        head["slo"] = [_slo(chunk_ms, measure) for chunk_ms in options.chunk_ms]
    else:
        for round_ in range(options.rounds):
            for chunk_ms in options.chunk_ms:
                for streams in options.streams:
                    measure(chunk_ms, streams, round_)
    head["peaks"] = dataclasses.asdict(meter.peaks)
    if options.json:
        report.write_json(options.json, head, rows)
    if options.png:
        report.write_png(options.png, rows, f"{head['model']}, {head['precision']}")


def _slo(chunk_ms: int, measure: Any) -> dict[str, int]:
    """Streams with p95 of the response under a chunk, and under half of one; rows measured for one serve both."""
    known: dict[tuple[int, int], Row] = {}
    asked: dict[tuple[int, float], int] = {}

    def probe(streams: int, share: float) -> Row:
        turn = asked.get((streams, share), 0)
        asked[streams, share] = turn + 1
        if (streams, turn) not in known:
            known[streams, turn] = measure(chunk_ms, streams, turn)
        return known[streams, turn]

    found = {share: most_streams(partial(probe, share=share), share) for share in (1.0, 0.5)}
    print(f"\n{chunk_ms} ms: {found[1.0]} streams within a chunk, {found[0.5]} within half of one\n", flush=True)
    return {"chunk_ms": chunk_ms, "within_chunk": found[1.0], "within_half": found[0.5]}


def _batches(options: argparse.Namespace, path: Path, head: dict[str, Any], reference: str) -> None:
    print(batches.HEADING, flush=True)
    found: list[batches.Batch] = []
    for chunk_ms in options.chunk_ms:
        job = batches.Job(str(path), options.precision, options.threads, options.encoder, 1, chunk_ms, options.steps)
        for batch in batches.sweep(job, options.batches, reference):
            print(batches.line(batch), flush=True)
            found.append(dataclasses.replace(batch, tokens=[]))
    if options.json:
        report.write_json(options.json, head, found)


if __name__ == "__main__":
    main()

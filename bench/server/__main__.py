"""A load sweep against any server of speech-to-text over WebSocket, in real time.

python -m bench.server ws://127.0.0.1:8000/ws --streams 1,10,50 --seconds 60       # or /, or /v1/listen; theirs or ours
python -m bench.server --serve --streams 1,10,50,100 --seconds 180 --chunk-ms 560  # starts our gateway first
python -m bench.server --serve --streams 50 --refused-after 10 -- --max-streams 50 # options of the gateway behind --

Every stream sends frames of 20 ms by the clock, from other processes than the server's; the streams' starts are spread
over 2 s. They say --tracks different tracks of held-out sentences. Before the rows each track is sent alone, as fast as
the server takes it (--alone-realtime: as it is spoken), which is the text that streams are compared with.

First text: from when the frame in which the track's first word begins was due to the first text behind it. Last text:
from the end's being sent to the last final. A row says what the clients themselves were late and used; where they could
not keep time it does not count. --refused-after N: N more streams come, one after another, when all of the largest row
are there; said is how long each waited for its 1013.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.engine.__main__ import numbers
from bench.engine.report import machine
from bench.server import report
from bench.server.client import Config
from bench.server.gateway import Gateway
from bench.server.row import Row, errors_of
from bench.server.sweep import Sweep
from bench.server.tracks import make
from nemostream_agent.protocols.address import talk_of
from nemostream_agent.protocols.errors import ClientError, shown

HERE = Path(__file__).parent.parent


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return name, value


def process(text: str) -> tuple[str, int]:
    name, _, pid = text.rpartition("=")
    if not pid.isdigit() or not Path(f"/proc/{pid}/stat").exists():
        raise argparse.ArgumentTypeError(f"{text!r} names no process; give a number, or NAME=NUMBER")
    return name or "server", int(pid)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="of the server; its path says which protocol it speaks")
    parser.add_argument("--serve", action="store_true", help="start our own gateway, and measure that")
    parser.add_argument("--path", default="/ws", help="with --serve: the protocol, /ws, / or /v1/listen")
    parser.add_argument("--streams", type=numbers, default=[1, 10, 50, 100])
    parser.add_argument("--seconds", type=float, default=60.0, help="of audio for each stream")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tracks", type=int, default=8, help="different ones")
    parser.add_argument("--alone-realtime", action="store_true", help="send the tracks alone in real time, too")
    parser.add_argument("--clients", type=int, default=2, help="processes that send the audio")
    parser.add_argument("--frame-ms", type=int, default=20)
    parser.add_argument("--spread", type=float, default=2.0, help="seconds over which streams start")
    parser.add_argument("--key", help="API key")
    parser.add_argument("--chunk-ms", type=int, help="the same as --query chunk_ms=...")
    parser.add_argument("--query", type=pair, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--pid", type=process, action="append", default=[], metavar="[NAME=]PID", help="whose CPU counts"
    )
    parser.add_argument("--refused-after", type=int, default=0, metavar="N", help="on top of the largest row")
    parser.add_argument("--json", type=Path, default=HERE / "server.json")
    parser.add_argument("--png", type=Path, default=HERE / "server.png")
    parser.add_argument("gateway", nargs="*", help="behind --: options of the gateway that --serve starts")
    options = parser.parse_args(given)
    if options.serve and options.url:
        options.gateway, options.url = [options.url, *options.gateway], None
    if not options.serve and (options.url is None or options.gateway):
        parser.error("give the address of a server, or --serve")
    if min(options.rounds, options.tracks, options.clients, options.frame_ms) < 1 or options.seconds < 1:
        parser.error("at least 1 round, 1 track, 1 process, 1 ms and 1 second are needed")
    if options.seconds <= options.spread:
        parser.error(f"streams of {options.seconds:g} s are never all there if they start over {options.spread:g} s")
    if options.chunk_ms is not None:
        options.query.append(("chunk_ms", str(options.chunk_ms)))
    return options


def main(given: Sequence[str] | None = None) -> None:
    """Run the command; what goes wrong is one sentence on standard error and exit status 1."""
    options = arguments(given)
    try:
        run(options)
    except (ClientError, RuntimeError, ValueError) as error:
        sys.exit(f"bench.server: {error}")


def run(options: argparse.Namespace) -> None:
    before = machine()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, pids = options.url, dict(options.pid)
        if options.serve:
            gateway = stack.enter_context(Gateway(options.gateway))
            url, pids = gateway.ws + options.path, {**gateway.pids(), **pids}
        talk_of(url)
        tracks = [make(seed, options.seconds) for seed in range(options.tracks)]
        config = Config(url, "", [], options.frame_ms, options.spread, options.key, dict(options.query))
        sweep = Sweep(config, tracks, folder, options.clients, pids)
        alone = errors_of([track.text for track in tracks], sweep.alone(options.alone_realtime))
        rows: list[Row] = []
        for round_ in range(1, options.rounds + 1):
            for streams in options.streams:
                on_top = options.refused_after if streams == max(options.streams) else 0
                rows.append(sweep.row(streams, round_, on_top))
                print(f"round {round_}: {report.line(rows[-1:])}", file=sys.stderr, flush=True)
    print(report.heading())
    for streams in options.streams:
        print(report.line([row for row in rows if row.streams == streams]))
    # A row with fewer streams than there are tracks hears some of them only.
    print(f"\nalone, the {options.tracks} tracks: WER {alone[0]:.1%}, CER {alone[1]:.1%}")
    if said := report.on_top(rows):
        print(f"\n{said}")
    why = next((row.why for row in rows if row.why), "")
    if why:
        print(f"\nthe first refusal or error: {why}")
    head = {
        "command": "python -m bench.server " + " ".join(sys.argv[1:] if options.key is None else ["..."]),
        "server": "our gateway" if options.serve else shown(url),
        "protocol": options.path if options.serve else "",
        "seconds": options.seconds,
        "rounds": options.rounds,
        "tracks": options.tracks,
        "wer_alone": alone[0],
        "cer_alone": alone[1],
        "machine": before,
    }
    report.write_json(options.json, head, rows)
    report.write_png(options.png, rows, f"{head['server']}, {options.seconds:g} s a stream")


if __name__ == "__main__":
    main()

"""WHIP sessions at once against our gateway, and what packet loss does to them.

python -m bench.whip                                             # 20 sessions of a minute; more are refused
python -m bench.whip --loss 0,2,5 --reorder 3 --rounds 3         # the same with packets lost, and with packets late
python -m bench.whip --sessions 8 --loss 0,5 --burst 4 -- --chunk-ms 560     # options of the gateway behind --

Every session is an aiortc peer that says a track of held-out sentences in real time, 20 ms a packet, from other
processes than the gateway's. In front of the track and behind it stands one known sentence. Packets are lost in the
track alone, by a relay of the session's own: the sentences say what the delay is before and after. WER is of the track.
Sessions of all rows say the same and are compared one by one.

Caption: from when the packet was due in which a word ends to the arrival of the first interim that ends with it. Final:
the same for finals, so the silence that ends a segment is in it. CPU and memory are taken while all sessions run. A row
says what the clients used; where they could not keep time it does not count.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.engine.report import machine
from bench.server.__main__ import pair
from bench.whip import report
from bench.whip.load import Config, Weather
from bench.whip.plan import make
from bench.whip.row import Row
from bench.whip.sweep import SETTLE_SECONDS, Sweep, WhipGateway

HERE = Path(__file__).parent.parent


def percents(text: str) -> list[float]:
    """ "0,2,5" -> [0.0, 0.02, 0.05]"""
    try:
        found = [float(part) / 100 for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= part < 0.9 for part in found):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of percentages below 90, as 0,2,5")
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each track")
    parser.add_argument("--tracks", type=int, default=20, help="different ones")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--loss", type=percents, default=[0.0], metavar="0,2,5", help="percent of packets, a row each")
    parser.add_argument("--burst", type=float, help="lost packets in a run, on average; independent losses otherwise")
    parser.add_argument("--reorder", type=float, metavar="PERCENT", help="one more row: so many packets come late")
    parser.add_argument("--late-ms", type=float, default=50.0, help="by how much those are late")
    parser.add_argument("--rooms", type=int, help="sessions share so many; one each otherwise")
    parser.add_argument("--clients", type=int, default=2, help="processes that hold the sessions")
    parser.add_argument("--spread", type=float, default=2.0, help="seconds over which sessions begin")
    parser.add_argument("--on-top", type=int, default=10, help="POSTs above the limit, in the first row of each round")
    parser.add_argument("--query", type=pair, action="append", default=[], metavar="NAME=VALUE", help="of the POST")
    parser.add_argument("--json", type=Path, default=HERE / "whip.json")
    parser.add_argument("--png", type=Path, default=HERE / "whip.png")
    parser.add_argument("gateway", nargs="*", help="behind --: options of the gateway")
    options = parser.parse_args(given)
    if min(options.sessions, options.tracks, options.rounds, options.clients) < 1:
        parser.error("at least 1 session, 1 track, 1 round and 1 process are needed")
    if options.seconds <= options.spread + SETTLE_SECONDS:
        parser.error(f"tracks of {options.seconds:g} s are over before all sessions are there")
    if options.burst is not None and options.burst < 1:
        parser.error("a burst has at least one packet")
    return options


def weathers(options: argparse.Namespace) -> list[Weather]:
    """The rows."""
    found = [Weather(loss, options.burst if loss else None) for loss in options.loss]
    if options.reorder:
        found.append(Weather(reorder=options.reorder / 100, late=options.late_ms / 1000))
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Run the command; what goes wrong is one sentence on standard error and exit status 1."""
    options = arguments(given)
    try:
        run(options)
    except (RuntimeError, ValueError) as error:
        sys.exit(f"bench.whip: {error}")


def run(options: argparse.Namespace) -> None:
    before, kinds = machine(), weathers(options)
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plans = [make(seed, options.seconds) for seed in range(min(options.tracks, options.sessions))]
        gateway = stack.enter_context(WhipGateway(["--max-streams", str(options.sessions), *options.gateway]))
        rooms = options.rooms or options.sessions
        config = Config("", "", [], rooms, options.spread, query=dict(options.query))
        for round_ in range(1, options.rounds + 1):
            # Another round loses other packets.
            seeded = dataclasses.replace(config, seed=round_)
            sweep = Sweep(seeded, plans, folder, options.clients, gateway, direct=kinds == [Weather()])
            for kind in kinds if round_ % 2 else reversed(kinds):
                on_top = options.on_top if kind == kinds[0] else 0
                rows.append(sweep.row(options.sessions, round_, kind, on_top))
                print(f"round {round_}: {report.line(rows[-1:], rows[-1:])}", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: (kinds.index(row.weather), row.round))
    first = [row for row in rows if row.weather == kinds[0]]
    print(report.heading())
    for kind in kinds:
        print(report.line([row for row in rows if row.weather == kind], first))
    if said := report.on_top(rows):
        print(f"\n{said}")
    head = {
        "command": "python -m bench.whip " + " ".join(sys.argv[1:]),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "tracks": len(plans),
        "machine": before,
    }
    report.write_json(options.json, head, rows)
    report.write_png(options.png, rows, f"{options.sessions} WHIP sessions, {options.seconds:g} s of speech each")


if __name__ == "__main__":
    main()

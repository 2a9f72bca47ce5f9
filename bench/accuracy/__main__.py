"""How well a model writes what is said, and when a user sees it.

python -m bench.accuracy                                            # the embedded model, held-out voices
python -m bench.accuracy --model en-starter best.nemo --chunk-ms 160,1120 --lead 0.3,5   # two, and which is better
python -m bench.accuracy --manifest ../shared/data/public_test_en --decoder rnnt,ctc
python -m bench.accuracy --model en-starter start --precision int8,fp32   # each in those of the two that its bundle has
python -m bench.accuracy --clips 60 --room 0,5                # and through rooms that lose none and 5 % of packets

Clips go through the engine's core as live streams, endpointing and all, 20 ms at a time on a clock of audio, many as
rows of one batch. WER and CER are of all clips together, in lower case and without punctuation; in brackets the
interval that 95 % of 2,000 resampled sets of clips give. With several models, precisions or decoders the first is what
the others are compared with, clip by clip.

First text: from the begin of the first word's sound to the first text shown. Final: from the end of the last word's
sound to the final that endpointing gives. Both without what a step takes, of clips whose first (last) word is right.
Flush: steps, and ms on this machine, from a flush at the end of the sound to its final, one stream alone.

Onset: median of where a word was said to begin minus where the model's own CTC decoder has it in hindsight
(alignment.py): by how much the decoder is later than that, less the bundle's emission_delay_ms. Against sound: the same
for first words, from where the clip becomes loud; emission_delay_ms is right where this is 0.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.accuracy import manifest, report
from bench.accuracy.hearing import Way
from bench.accuracy.judging import Judged
from bench.accuracy.row import Difference, Row, Variant, difference, row_of
from bench.accuracy.sweep import Sweep
from bench.engine.__main__ import numbers
from bench.engine.report import machine
from bench.speech import ROOT
from nemostream.errors import NemostreamError
from nemostream.models import catalog
from nemostream.models.bundle import MANIFEST, read_info
from nemostream_agent.livekit_server import ServerError

SHARED = Path(os.environ.get("SHARED", ROOT.parent / "shared"))
GENERAL = SHARED / "data" / "sentences_en_heldout.txt"
BENCH = Path(__file__).parent.parent


def seconds(text: str) -> list[float]:
    """ "0.3,5" -> [0.3, 5.0]; none below 0."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= value <= 600 for value in found):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seconds, 0 to 600, as 0.3,5")
    return found


def percents(text: str) -> list[float]:
    """ "0,5" -> [0.0, 0.05]; below 100."""
    found = seconds(text)
    if max(found) >= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of percents below 100, as 0,5")
    return [value / 100 for value in found]


def some_of(*allowed: str) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        found = text.split(",")
        if not set(found) <= set(allowed):
            raise argparse.ArgumentTypeError(f"{text!r} is not among {', '.join(allowed)}")
        return found

    return parse


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=SHARED / "corpus_en_heldout", help="a folder, or a .jsonl")
    parser.add_argument("--general", type=Path, help="sentences that are no template; default: the held-out ones")
    parser.add_argument("--clips", type=int, help="so many, spread over the manifest; default: all")
    parser.add_argument("--model", nargs="+", default=[catalog.DEFAULT], help="names, bundle folders, .nemo files")
    parser.add_argument("--precision", type=some_of("int8", "fp32"), default=[None], help="default: the smallest held")
    parser.add_argument("--decoder", type=some_of("rnnt", "ctc"), default=[None], help="default: the bundle's")
    parser.add_argument("--chunk-ms", type=numbers, default=[160, 1120])
    parser.add_argument("--lead", type=seconds, default=[0.3], help="seconds of quiet noise before each clip")
    parser.add_argument(
        "--room", type=percents, default=[], metavar="LOST,...", help="also in rooms that lose this percent of packets"
    )
    parser.add_argument("--rows", type=int, default=32, help="streams at once")
    parser.add_argument("--threads", type=int, help="of the encoder; default: one per core")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and of the intervals")
    parser.add_argument("--json", type=Path, default=BENCH / "accuracy.json")
    parser.add_argument("--png", type=Path, default=BENCH / "accuracy.png")
    options = parser.parse_args(given)
    if min(options.rows, 1 if options.clips is None else options.clips) < 1 or options.seed < 0:
        parser.error("at least 1 clip and 1 row are needed, and a seed of 0 or more")
    if options.room and options.decoder != [None]:
        parser.error("a room is heard by the bundle's default decoder; leave out --decoder or --room")
    return options


def main(given: Sequence[str] | None = None) -> None:
    """Run the command; what goes wrong is one sentence on standard error and exit status 1."""
    options = arguments(given)
    try:
        run(options, list(sys.argv[1:] if given is None else given))
    except (NemostreamError, ServerError, ValueError, RuntimeError, OSError) as error:
        sys.exit(f"bench.accuracy: {error}")


def run(options: argparse.Namespace, given: Sequence[str]) -> None:
    before = machine()
    paths = {_label(model): catalog.resolve(model) for model in options.model}
    if len(paths) < len(options.model):
        raise ValueError("two models have the same name, and their rows could not be told apart; rename one's file")
    clips = manifest.read(options.manifest, options.clips)
    general = manifest.sentences(options.general or GENERAL) if options.general or GENERAL.exists() else frozenset()
    kinds = manifest.sets(clips, general)
    ways = options.chunk_ms, options.decoder, options.lead, options.room
    sweep = Sweep(clips, *ways, options.rows, options.threads, options.seed)
    rows: list[Row] = []
    judged: dict[Variant, dict[Way, Judged]] = {}
    print(report.heading(), flush=True)
    for name, path, precision in _precisions(paths, options.precision):
        for variant, way, its, flush in sweep.of(name, path, precision):
            judged.setdefault(variant, {})[way] = its
            for kind, its_clips in kinds.items():
                rows.append(row_of(variant, way, kind, its.part(its_clips), flush))
                print(report.line(rows[-1]), flush=True)
    found = _differences(judged, kinds)
    if found:
        print(f"\n{report.differences(found)}")
    head = {
        "command": f"python -m bench.accuracy {' '.join(map(_shown, given))}".strip(),
        "manifest": options.manifest.resolve().name,
        "seed": options.seed,
        "machine": before,
    }
    report.write_json(options.json, head, rows, found)
    report.write_png(options.png, rows, f"{len(clips)} clips of {head['manifest']}")


def _precisions(paths: Mapping[str, Path], asked: Sequence[str | None]) -> Iterator[tuple[str, Path, str | None]]:
    """Each model in every precision that is asked for and that it has; of those it lacks, one that no model has is
    left in, for the error that says so."""
    held = {name: read_info(path).precisions if (path / MANIFEST).exists() else None for name, path in paths.items()}
    for (name, path), precision in itertools.product(paths.items(), asked):
        its = held[name]
        elsewhere = any(others is None or precision in others for others in held.values())
        if its is None or precision is None or precision in its or not elsewhere:
            yield name, path, precision


def _differences(
    judged: Mapping[Variant, Mapping[Way, Judged]], kinds: Mapping[str, Sequence[int]]
) -> list[Difference]:
    """Of every variant against the first, in each way and set."""
    base, *others = judged
    return [
        difference(base, before.part(clips), variant, now.part(clips), way, kind)
        for variant in others
        for before, (way, now) in zip(judged[base].values(), judged[variant].items(), strict=True)
        for kind, clips in kinds.items()
    ]


def _label(model: str) -> str:
    return model if catalog.named(model) else Path(model).name


def _shown(argument: str) -> str:
    """Without the folders of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


if __name__ == "__main__":
    main()

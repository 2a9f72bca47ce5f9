"""python -m train: train, or go on training, until the time is up. See docs/training.md."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch

from nemostream.errors import NemostreamError
from nemostream.models.checkpoint import FILTERS, WINDOW
from train.data import load_corpus
from train.evaluate import Evaluation
from train.features import LogMel
from train.heldout import held_out_sentences
from train.replicas import Replicas
from train.save import Template
from train.schedule import Schedule
from train.trainer import Settings, Trainer

FULL = {"flat_steps": 500, "clean_steps": 1200, "rnnt_step": 1500}
"""The schedule from nothing, on hours of speech."""
SMALL = {
    **{"from_scratch": True, "layers": 2, "seconds": 24.0, "hours": 2.5, "rate": 2e-3},
    **{"warm_steps": 50, "flat_steps": 80, "clean_steps": 10_000, "rnnt_step": 160},
}
"""Two dozen sentences of one clean voice, learnt by heart: every stage of the recipe in about two minutes."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a small model that learns a few sentences by heart")
    parser.add_argument(
        "--init", type=Path, required=True, help=".nemo to start from: configuration, tokenizer, weights"
    )
    parser.add_argument(
        "--from-scratch", action="store_true", help="leave the weights of --init, begin with a flat start"
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders of shards; drawn from by the root of their length"
    )
    parser.add_argument("--held-out", type=Path, nargs="+", required=True, help="sentences that are never trained on")
    parser.add_argument("--test", type=Path, help="held-out folder of shards to measure WER on")
    parser.add_argument(
        "--out", type=Path, required=True, help="resume.pt, last.nemo, best.nemo, history.json, curve.png"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="wall time of this call")
    parser.add_argument(
        "--hours", type=float, default=3000.0, help="audio to hear in all; the rate cools over the last 1/5"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seconds", type=float, default=48.0, help="speech in a batch of each process")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    parser.add_argument("--threads", type=int, default=2, help="of torch on a CPU")
    parser.add_argument("--evaluate-steps", type=int, default=1000)
    parser.add_argument("--test-clips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=int, help="train on the first so many clips only")
    parser.add_argument("--steps", type=int, help="end this call at that step of the run")
    parser.add_argument("--layers", type=int, help="of the encoder; more than --init has are grown from them")
    parser.add_argument("--flat-steps", type=int, default=0, help="steps of the flat start")
    parser.add_argument("--clean-steps", type=int, default=0, help="steps on speech that is left as it is")
    parser.add_argument("--rnnt-step", type=int, default=0, help="CTC alone up to that step")
    parser.add_argument("--warm-steps", type=int, default=200, help="steps over which the rate rises")
    chosen, _ = parser.parse_known_args(given)
    parser.set_defaults(**(SMALL if chosen.small else FULL if chosen.from_scratch else {}))
    return parser.parse_args(given)


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    replicas = Replicas.join()
    try:
        if replicas.first:
            train_alone(args, replicas)
        else:
            train(args, replicas)
    except (NemostreamError, OSError) as error:
        sys.exit(str(error))
    finally:
        replicas.leave()


def train_alone(args: argparse.Namespace, replicas: Replicas) -> None:
    """Train as the only run that writes to --out."""
    with open(args.out / "pid", "a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            sys.exit(f"{args.out}: process {lock.read()} trains here; end it, or give another --out.")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        train(args, replicas)


def train(args: argparse.Namespace, replicas: Replicas) -> None:
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    template = Template.read(args.init)
    if args.layers:
        template = template.with_layers(args.layers) if args.from_scratch else template.grown(args.layers)
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=template.tokenizer)
    encode, cache = tokenizer.encode, args.out / "pcm"
    held_out = held_out_sentences(args.held_out)
    clips = replicas.in_turn(lambda: load_corpus(args.data, held_out, encode, cache))[: args.clips]
    config, state = template.checkpoint.config, template.checkpoint.state
    evaluation = None
    if args.test and replicas.first:
        mel = LogMel(config.mel, state[FILTERS], state[WINDOW]).to(device)
        general = held_out_sentences(path for path in args.held_out if path.suffix == ".txt")
        evaluation = Evaluation.load(args.test, general, encode, cache, mel, args.test_clips)
    trainer = Trainer(
        Settings(
            args.out,
            device,
            args.seconds,
            args.seed,
            args.workers,
            evaluate_steps=args.evaluate_steps,
        ),
        Schedule(args.hours, args.rate, args.flat_steps, args.clean_steps, args.rnnt_step, args.warm_steps),
        template,
        clips,
        evaluation,
        _decoder(tokenizer),
        from_scratch=args.from_scratch,
        replicas=replicas,
    )
    resumed = trainer.resume()
    spoken = sum(len(clip.samples) for clip in clips) / 16_000 / 3600
    if replicas.first:
        begin = f"going on at step {trainer.step}, {trainer.hours:.1f} h heard" if resumed else f"from {args.init.name}"
        print(f"{len(clips)} clips, {spoken:.2f} h, on {device}; {begin}", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(trainer, "stopping", True))
    if not resumed:
        trainer.evaluate()
    trainer.run(args.minutes, args.steps)
    if replicas.first:
        print(f"saved at step {trainer.step}, {trainer.hours:.1f} h heard", flush=True)


def _decoder(tokenizer: sentencepiece.SentencePieceProcessor):  # type: ignore[no-untyped-def]
    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids)))

    return decode


if __name__ == "__main__":
    main()

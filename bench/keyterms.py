"""What keyterms cost a decoding step, and what they do for rare names.

    python -m bench.keyterms [--rounds 5] [--hibari PYTHON] [--json bench/keyterms.json]

Cost: CPU time of RNN-T steps of 560 ms at several batch sizes, every row with 0, 20 or 1,000 terms of its own tree, in
alternating rounds; the embedded model on its speech, and random weights of the published models' size (joint 640, two
LSTM layers of 640, 1,024 tokens) that speak about as often.

Names: the embedded model and two sentences for each of 20 names, in the one voice of hibari-tts 0.2.1 (Apache-2.0),
whose Python is named with --hibari (python -m venv H; H/bin/pip install hibari-tts==0.2.1); without it this is left
out. Terms are the 20 names, or 980 other ones too. A name is found where its sentence has it. Terms written where
nobody said them are counted in the same sentences and in held-out clips without any of them (bench/speech.py), of which
the word error rate is given too. Weights other than nemostream.boosting.ALPHA are shown, not offered.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soxr

from bench.speech import ROOT, SHARDS, conversation, sentences
from nemostream.blas import one_thread
from nemostream.boosting import ALPHA, BoostingTree
from nemostream.encoders import Floats
from nemostream.greedy import Decoder, RnntDecoder
from nemostream.model import Model
from nemostream.models.catalog import resolve
from tests.clips import TEXTS
from tests.models.streaming import encode, log_mel

BATCHES, TERMS, FRAMES, CHUNKS = (1, 16, 64), (0, 20, 1000), 7, 8
ALPHAS = (ALPHA, 2.0, 3.0)
TOKENS_PER_FRAME = 0.25
NAMES = (
    "siobhan okonkwo szymanowski xanthippe nguyen priyanka bartholomew evangeline thaddeus ravindra kowalczyk zelenka "
    "marguerite anastasia montgomery fitzgerald dashwood quentin leonidas tanaka"
).split()
SENTENCES = (
    "please call {} at noon",
    "my name is {} and i live in london",
    "send a message to {} tomorrow",
    "can i speak to {} please",
    "the meeting with {} is on monday",
    "i have an appointment with doctor {}",
    "transfer ten dollars to {}",
    "remind me to call {} on friday",
    "{} will be here at seven",
    "good morning {} how are you",
)
CLIPS = 150
"""Held-out clips at most."""
SPEAK = """
import json, sys, numpy, hibari
voice = hibari.Hibari()
spoken = {str(i): voice(text, seed=i) for i, text in enumerate(json.load(sys.stdin))}
numpy.savez(sys.stdout.buffer, rate=voice.sample_rate, **spoken)
"""


# Cost


def random_weights(vocab: int = 1024, width: int = 640) -> tuple[dict[str, Floats], Floats]:
    """An RNN-T of the published models' size, and encoder frames (64, T, D): noise, on which all rows speak alike. Its
    predictor is computed and not heard, else a row would speak all the time or never."""
    rng = np.random.RandomState(0)

    def draw(*shape: int) -> Floats:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    weights = {"rnnt.embedding": draw(vocab + 1, width)}
    for layer in range(2):
        weights |= {f"rnnt.lstm.{layer}.{part}": draw(width, 4 * width) for part in ("w_ih", "w_hh")}
        weights |= {f"rnnt.lstm.{layer}.bias": np.zeros(4 * width, np.float32)}
    for part, inputs, outputs in (("enc", 1024, width), ("pred", width, width), ("out", width, vocab + 1)):
        weights |= {f"joint.{part}.weight": draw(inputs, outputs), f"joint.{part}.bias": np.zeros(outputs, np.float32)}
    weights["joint.pred.weight"][:] = 0
    encoded = rng.standard_normal((64, CHUNKS * FRAMES, 1024)).astype(np.float32)
    low, high = 0.0, 20.0
    for _ in range(12):
        weights["joint.out.bias"][-1] = (low + high) / 2
        tokens = run(RnntDecoder(weights, 1, 8), encoded[:8], [None] * 8)[1]
        often = tokens > TOKENS_PER_FRAME * 8 * CHUNKS * FRAMES
        low, high = ((low + high) / 2, high) if often else (low, (low + high) / 2)
    return weights, encoded


def run(decoder: Decoder, encoded: Floats, trees: Sequence[BoostingTree | None]) -> tuple[float, int]:
    """CPU seconds of a step, and the tokens of all."""
    rows = np.arange(len(encoded))
    for row, tree in enumerate(trees):
        decoder.reset(row)
        decoder.boost(row, tree)
    full, tokens = np.full(len(rows), FRAMES), 0
    begun = time.process_time()
    for k in range(CHUNKS):
        tokens += sum(map(len, decoder.step(rows, encoded[:, k * FRAMES : (k + 1) * FRAMES], full)))
    return (time.process_time() - begun) / CHUNKS, tokens


def cost(weights: dict[str, Floats], encoded: Floats, max_symbols: int, rounds: int) -> list[dict[str, Any]]:
    """A row of the table for each batch size and number of terms."""
    vocab = weights["joint.out.bias"].shape[0] - 1
    rng = np.random.RandomState(1)
    forests: dict[int, list[BoostingTree | None]] = {0: [None] * max(BATCHES)}
    for terms in TERMS[1:]:
        phrases = [[rng.randint(vocab, size=rng.randint(2, 8)).tolist() for _ in range(terms)] for _ in forests[0]]
        forests[terms] = [BoostingTree(p, vocab) for p in phrases]
    found = []
    for batch in BATCHES:
        decoder = RnntDecoder(weights, max_symbols, batch)
        took: dict[int, list[float]] = {terms: [] for terms in TERMS}
        said = {}
        for i in range(rounds + 1):
            for terms in TERMS if i % 2 else TERMS[::-1]:
                seconds, said[terms] = run(decoder, encoded[:batch], forests[terms][:batch])
                if i:  # the first round warms up
                    took[terms].append(seconds)
        for terms in TERMS:
            ratios = sorted(a / b for a, b in zip(took[terms], took[0], strict=True))
            found.append(
                {
                    "tokens": vocab,
                    "batch": batch,
                    "terms": terms,
                    "step_ms": round(1e3 * statistics.median(took[terms]), 3),
                    "tokens_per_step": round(said[terms] / CHUNKS, 1),
                    "ratio": [round(x, 3) for x in (ratios[0], statistics.median(ratios), ratios[-1])],
                }
            )
    return found


def embedded_speech(model: Model) -> Floats:
    """(64, T, D): the frames of 64 conversations."""
    samples = CHUNKS * FRAMES * model.frame_samples
    talks = [conversation(seed, samples / 16000 + 1, share=0.8) for seed in range(max(BATCHES))]
    return np.stack([frames[: CHUNKS * FRAMES] for frames in encoder_frames(model, talks)])


def build_ms(model: Model) -> dict[int, float]:
    """How long it takes from terms to a tree."""
    found = {}
    for terms in TERMS[1:]:
        words = (NAMES + others(terms))[:terms]
        model.keyterms.tree(["first"])  # which loads the tokenizer
        begun = time.perf_counter()
        model.keyterms.tree(words)
        found[terms] = round(1e3 * (time.perf_counter() - begun), 2)
    return found


# Names


def speak(python: str, texts: Sequence[str]) -> list[Floats]:
    """16 kHz speech of each text, the same every time."""
    done = subprocess.run([python, "-c", SPEAK], input=json.dumps(texts).encode(), stdout=subprocess.PIPE, check=True)
    with np.load(io.BytesIO(done.stdout)) as spoken:
        rate = int(spoken["rate"])
        waves = [np.asarray(spoken[str(i)], np.float32) for i in range(len(texts))]
    return [soxr.resample(wave / np.abs(wave).max() * 0.5, rate, 16000).astype(np.float32) for wave in waves]


def others(count: int) -> list[str]:
    """Names that nobody has."""
    rng = np.random.RandomState(2)
    syllables = "ba bel cor dan el fa gri hol is jo kal lem mor nev or pal qui ras sel tor ul vin wes yar zan".split()
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choice(syllables, rng.randint(2, 5)))] = None
    return list(found)


def held_out() -> tuple[Sequence[Floats], list[str]]:
    """The clips of bench/speech.py and what is said in them."""
    folder = Path(os.environ.get("SHARED", ROOT.parent / "shared")) / "corpus_en_heldout"
    lines = [line for path in sorted(folder.glob("*[0-9].jsonl"))[:SHARDS] for line in path.read_text().splitlines()]
    said = [json.loads(line)["text"] for line in lines] or list(TEXTS.values())
    return sentences()[:CLIPS], said[:CLIPS]


def encoder_frames(model: Model, clips: Sequence[Floats]) -> list[Floats]:
    """The frames (T, D) of each clip, with a second of silence behind it."""
    mels = [log_mel(model.bundle, np.pad(clip, (1600, 16000))) for clip in clips]
    out: list[Floats] = []
    for start in range(0, len(mels), 16):
        part = mels[start : start + 16]
        out += encode(model.backend.rows(FRAMES, len(part), 0), part)
    return out


def texts(model: Model, name: str, frames: Sequence[Floats], terms: Sequence[str], alpha: float) -> list[str]:
    """What is written of each clip."""
    tree = BoostingTree(model.keyterms.phrases(terms), model.bundle.info.vocab_size, alpha) if terms else None
    decoder, out = model.decoder(name, 1), []
    for encoded in frames:
        decoder.reset(0)
        decoder.boost(0, tree)
        tokens = decoder.step(np.array([0]), encoded[None], np.array([len(encoded)]))[0]
        out.append("".join(model.bundle.tokens[t.id] for t in tokens).replace("\u2581", " ").strip())
    return out


def names(model: Model, python: str) -> list[dict[str, Any]]:
    """A row of the table for each decoder, list of terms and weight."""
    asked = [(name, SENTENCES[(2 * i + k) % len(SENTENCES)]) for i, name in enumerate(NAMES) for k in range(2)]
    spoken = encoder_frames(model, speak(python, [text.format(name) for name, text in asked]))
    clips, said = held_out()
    plain = encoder_frames(model, clips)
    found = []
    for decoder in model.bundle.info.decoders:
        lists = {0: [], 20: NAMES, 1000: NAMES + [name for name in others(1020) if name not in NAMES][:980]}
        for terms, alpha in [(0, ALPHA), *((n, alpha) for alpha in ALPHAS for n in (20, 1000))]:
            heard = texts(model, decoder, spoken, lists[terms], alpha)
            beside = texts(model, decoder, plain, lists[terms], alpha)
            right = sum(name in text.split() for (name, _), text in zip(asked, heard, strict=True))
            favoured = set(lists[terms])
            invented = sum(
                word in favoured and word != name
                for (name, _), text in zip(asked, heard, strict=True)
                for word in text.split()
            ) + sum(word in favoured for text in beside for word in text.split())
            count = sum(len(text.split()) for text in [*heard, *beside])
            references = [text.format(name) for name, text in asked]
            found.append(
                {
                    "decoder": decoder,
                    "terms": terms,
                    "alpha": alpha,
                    "names_found": right,
                    "names_spoken": len(asked),
                    "invented_per_1000_words": round(1000 * invented / count, 2),
                    "wer_with_names": round(float(jiwer.wer(references, heard)), 4),
                    "wer_without_names": round(float(jiwer.wer(said, beside)), 4),
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hibari", help="a Python with hibari-tts 0.2.1")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = Model.load(resolve(None), None, 1)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    report: dict[str, Any] = {"machine": machine, "alpha": ALPHA, "build_ms": build_ms(model), "cost": []}
    print("from terms to a tree, ms:", report["build_ms"])
    print("| tokens | batch | terms | step, ms | tokens per step | / without terms: min | median | max |")
    print("|---|---|---|---|---|---|---|---|")
    with one_thread():
        embedded = dict(model.bundle.weights), embedded_speech(model), model.bundle.info.max_symbols
        for weights, encoded, symbols in (embedded, (*random_weights(), 1)):
            for row in cost(weights, encoded, symbols, args.rounds):
                report["cost"].append(row)
                head = [row[key] for key in ("tokens", "batch", "terms", "step_ms", "tokens_per_step")]
                print("|", " | ".join(map(str, [*head, *row["ratio"]])), "|", flush=True)
        if args.hibari:
            report["names"] = names(model, args.hibari)
            print("\n| decoder | terms | alpha | names found | invented / 1,000 words | WER with names | without |")
            print("|---|---|---|---|---|---|---|")
            for row in report["names"]:
                share = f"{row['names_found']} of {row['names_spoken']}"
                tail = ("invented_per_1000_words", "wer_with_names", "wer_without_names")
                cells = [row["decoder"], row["terms"], row["alpha"], share, *(row[key] for key in tail)]
                print("|", " | ".join(map(str, cells)), "|")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

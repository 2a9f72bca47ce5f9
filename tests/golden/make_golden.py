"""NeMo's own answers, as small files that tests compare with. Runs where nemo_toolkit[asr] 3.0.0 is installed:

    python tests/golden/make_golden.py [OUT [FIRST_SEED]]          # default: tests/data 0
    python tests/golden/make_golden.py OUT FIRST_SEED KIND...      # only these, and each as NeMo itself saves it

The first writes golden_toy.npz, golden_random.npz and, of each other KIND (tests/random_model.py), golden_KIND.npz with
the tokens of its first utterances alone; the second golden_KIND.npz and KIND.nemo.
    lookaheads              (n,)
    mel.{u}                 (F, n_mels) float32 of the encoder's utterances (ENCODER_SEEDS)
    enc.{u}.{lookahead}     (T', D) float32, all three encoded as one padded batch
    {rnnt,ctc}.{lookahead}[.{language}].{ids,frames,counts}    int16: tokens of utterances FIRST_SEED.., one behind the
                            other
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugin")]

from tests.random_model import FULL_SIZE, KINDS, Kind, write_random_nemo  # noqa: E402
from tests.speech import utterance  # noqa: E402

UTTERANCES, UTTERANCES_OF_KIND, UTTERANCES_AT_FULL_SIZE = 100, 5, 2
ENCODER_SEEDS = {1000: 13, 1001: 2, 1002: 5}
"""Seed: words. The first is longer than every left context."""


def load(path: Path) -> Any:
    import nemo.collections.asr as nemo_asr
    from omegaconf import OmegaConf

    model = nemo_asr.models.ASRModel.restore_from(str(path), map_location="cpu")
    model.preprocessor.featurizer.dither = 0.0
    if hasattr(model, "eou_token"):
        # Its class keeps alignments, and then NeMo's timestamps are others than of every other model.
        plain = dict(model.cfg.decoding) | {"preserve_alignments": False, "compute_timestamps": False}
        model.change_decoding_strategy(OmegaConf.create(plain))
    return model.eval()


def batch(samples: list[np.ndarray[Any, Any]]) -> tuple[Any, Any]:
    import torch

    padded = np.zeros((len(samples), max(map(len, samples))), np.float32)
    for row, values in zip(padded, samples, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded), torch.tensor([len(values) for values in samples])


def answers(model: Any, first_seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Everything one golden file holds."""
    contexts = [list(context) for context in model.encoder.att_context_size_all]
    out: dict[str, np.ndarray[Any, Any]] = {"lookaheads": np.array([right for _, right in contexts])}
    samples, lengths = batch([utterance(seed, words)[1] for seed, words in ENCODER_SEEDS.items()])
    mel, mel_lengths = model.preprocessor(input_signal=samples, length=lengths)
    for u, frames in enumerate(mel_lengths.tolist()):
        out[f"mel.{u}"] = mel[u, :, :frames].T.numpy().copy()
    spoken = [utterance(seed)[1] for seed in range(first_seed, first_seed + UTTERANCES)]
    for context in contexts:
        model.encoder.set_default_att_context_size(context)
        encoded, encoded_lengths = model.encoder(audio_signal=mel, length=mel_lengths)
        for u, frames in enumerate(encoded_lengths.tolist()):
            out[f"enc.{u}.{context[1]}"] = encoded[u, :, :frames].T.numpy().copy()
        out |= tokens(model, ("rnnt", "ctc"), context[1], spoken)
    return out


def answers_of_kind(model: Any, kind: Kind, first_seed: int, utterances: int) -> dict[str, np.ndarray[Any, Any]]:
    """The tokens alone: of every lookahead, and of every language that has a place of its own in the prompt."""
    spoken = [utterance(seed)[1] for seed in range(first_seed, first_seed + utterances)]
    out: dict[str, np.ndarray[Any, Any]] = {"lookaheads": np.array(kind.lookaheads)}
    for lookahead in kind.lookaheads:
        model.encoder.set_default_att_context_size([kind.left, lookahead])
        for language in {place: code for code, place in kind.prompts.items()}.values() or [None]:
            out |= tokens(model, kind.decoders, lookahead, spoken, language)
    return out


def tokens(
    model: Any,
    decoders: tuple[str, ...],
    lookahead: int,
    spoken: list[np.ndarray[Any, Any]],
    language: str | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Of each decoder the tokens of all utterances, asked for in that language."""
    found: dict[str, list[list[tuple[int, int]]]] = {decoder: [] for decoder in decoders}
    for start in range(0, len(spoken), 20):
        part, part_lengths = batch(spoken[start : start + 20])
        prompt = {}
        if language is not None:
            prompt["prompt_indices"] = torch_full(len(part), model.cfg.model_defaults.prompt_dictionary[language])
        first, lengths, *_ = model.forward(input_signal=part, input_signal_length=part_lengths, **prompt)
        if "rnnt" in decoders:
            found["rnnt"] += transducer(model, first, lengths)
        if "ctc" in decoders:
            # Of a pure CTC model the forward is that of its head too.
            logits = model.ctc_decoder(encoder_output=first) if "rnnt" in decoders else first
            found["ctc"] += ctc(logits, lengths)
    out: dict[str, np.ndarray[Any, Any]] = {}
    for decoder, utterances in found.items():
        key = ".".join([decoder, str(lookahead), *([language] if language else [])])
        flat = np.array([pair for tokens in utterances for pair in tokens], np.int16).reshape(-1, 2)
        out |= {f"{key}.ids": flat[:, 0], f"{key}.frames": flat[:, 1]}
        out[f"{key}.counts"] = np.array([len(tokens) for tokens in utterances], np.int16)
        frames_in_all = sum((len(values) + 1080) // 1280 for values in spoken)
        print(f"  {key}: {len(flat)} tokens, {len(set(flat[:, 0].tolist()))} different, in {frames_in_all} frames")
    return out


def torch_full(count: int, value: int) -> Any:
    import torch

    return torch.full((count,), value, dtype=torch.long)


def transducer(model: Any, encoded: Any, lengths: Any) -> list[list[tuple[int, int]]]:
    hypotheses = model.decoding.rnnt_decoder_predictions_tensor(encoded, lengths, return_hypotheses=True)
    return [
        list(zip(np.asarray(h.y_sequence).tolist(), np.asarray(h.timestamp).tolist(), strict=True)) for h in hypotheses
    ]


def ctc(logits: Any, lengths: Any) -> list[list[tuple[int, int]]]:
    """The first frame of each run of NeMo's argmax that is not blank."""
    best, blank = logits.argmax(-1).numpy(), logits.shape[-1] - 1
    out = []
    for row, frames in zip(best, lengths.tolist(), strict=True):
        ids = row[:frames]
        first = np.flatnonzero((ids != blank) & (np.diff(ids, prepend=-1) != 0))
        out.append([(int(ids[frame]), int(frame)) for frame in first])
    return out


def main() -> None:
    import torch

    logging.disable(logging.WARNING)
    torch.set_grad_enabled(False)
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "data"
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    toy = ROOT / "tests" / "data" / "toy.nemo"
    asked = sys.argv[3:]
    with tempfile.TemporaryDirectory() as scratch:
        random = Path(scratch) / "random.nemo"
        if not asked:
            write_random_nemo(random, toy)
            for name, path in (("toy", toy), ("random", random)):
                print(name)
                np.savez_compressed(out / f"golden_{name}.npz", **answers(load(path), first_seed))
        for name in asked or [name for name in KINDS if name != "hybrid"]:
            print(name)
            kind, utterances = KINDS.get(name) or FULL_SIZE[name], UTTERANCES_OF_KIND
            if name in FULL_SIZE:
                utterances = UTTERANCES_AT_FULL_SIZE
            write_random_nemo(random, toy, kind)
            model = load(random)
            assert type(model).__name__ == kind.target.rpartition(".")[2]
            if asked:
                model.save_to(str(out / f"{name}.nemo"))
            np.savez_compressed(out / f"golden_{name}.npz", **answers_of_kind(model, kind, first_seed, utterances))


if __name__ == "__main__":
    main()

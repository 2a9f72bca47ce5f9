"""How well a model recognises held-out voices: losses and WER of greedy RNN-T, offline, at a few lookaheads.

evaluation = Evaluation.load(folder, general, encode, cache, mel, count=100)
evaluation.run(checkpoint, model, decode)     # {"wer_templates@13": 0.21, "rnnt@13": 1.4, ...}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch
from torch import Tensor

from nemostream.greedy import RnntDecoder
from nemostream.models.checkpoint import Checkpoint
from nemostream.models.decoder_weights import decoder_weights
from nemostream.models.heads import ConformerModel
from train.batches import Batch, collate
from train.data import SAMPLE_RATE, Clip, read_shard
from train.features import LogMel
from train.heldout import normalise
from train.losses import ctc_loss, per_token, rnnt_loss

LOOKAHEADS = (13, 1)
SILENCE_SAMPLES = SAMPLE_RATE // 2
ROWS = 25


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """`groups` are clips by kind: filled "templates" and "general" sentences."""

    groups: dict[str, list[Clip]]
    mel: LogMel

    @classmethod
    def load(
        cls,
        folder: Path,
        general: frozenset[str],
        encode: Callable[[str], list[int]],
        cache: Path,
        mel: LogMel,
        count: int,
    ) -> Evaluation:
        """Every nth clip of the held-out `folder`, `count` in all; a sentence in `general` is no template."""
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
        groups: dict[str, list[Clip]] = {"templates": [], "general": []}
        for row in rows[:: max(1, len(rows) // count)]:
            start, length = round(row["start"] * SAMPLE_RATE), round(row["duration"] * SAMPLE_RATE)
            samples = read_shard(folder / row["audio"], cache)[start : start + length]
            text = normalise(row["text"])
            clip = Clip(samples, text, row["voice"], tuple(encode(text)), 1.0)
            groups["general" if text in general else "templates"].append(clip)
        return cls({kind: sorted(clips, key=lambda c: len(c.samples)) for kind, clips in groups.items() if clips}, mel)

    @torch.no_grad()
    def run(
        self, checkpoint: Checkpoint, model: ConformerModel, decode: Callable[[Sequence[int]], str]
    ) -> dict[str, float]:
        """Evaluate `model` (in eval mode, its weights also in `checkpoint`)."""
        weights = decoder_weights(checkpoint, model)
        transducer = checkpoint.config.transducer
        assert transducer is not None
        results: dict[str, float] = {}
        for lookahead in (r for r in LOOKAHEADS if r in checkpoint.config.encoder.lookaheads):
            losses: list[tuple[Tensor, Tensor, Tensor]] = []
            for kind, clips in self.groups.items():
                said: list[str] = []
                for start in range(0, len(clips), ROWS):
                    batch = _batch(clips[start : start + ROWS], lookahead).to(next(model.parameters()).device)
                    encoded, frames = model.encoder(*self.mel(batch.samples, batch.lengths), lookahead)
                    losses.append(_losses(model, encoded, frames, batch))
                    decoder = RnntDecoder(weights, transducer.max_symbols, len(frames))
                    rows = np.arange(len(frames))
                    for row in rows:
                        decoder.reset(int(row))
                    tokens = decoder.step(rows, encoded.float().cpu().numpy(), frames.cpu().numpy().astype(np.intp))
                    said += [decode([token.id for token in row]) for row in tokens]
                results[f"wer_{kind}@{lookahead}"] = float(jiwer.wer([clip.text for clip in clips], said))
            rnnt, ctc, lengths = (torch.cat(parts) for parts in zip(*losses, strict=True))
            every = torch.ones_like(lengths, dtype=torch.bool)
            results[f"rnnt@{lookahead}"] = float(per_token(rnnt, lengths, every))
            results[f"ctc@{lookahead}"] = float(per_token(ctc, lengths, every))
        return results


def _batch(clips: Sequence[Clip], lookahead: int) -> Batch:
    return collate([(np.pad(clip.wave(), (0, SILENCE_SAMPLES)), clip.tokens) for clip in clips], lookahead)


def _losses(model: ConformerModel, encoded: Tensor, frames: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    ctc = ctc_loss(ctc_log_probs(model, encoded), batch.tokens, frames, batch.token_lengths)
    logits = transducer_logits(model, encoded, batch.tokens)
    return rnnt_loss(logits, batch.tokens, frames, batch.token_lengths), ctc, batch.token_lengths


def ctc_log_probs(model: ConformerModel, encoded: Tensor) -> Tensor:
    """(B, T, D) -> (B, T, V + 1)."""
    assert model.config.ctc_prefix is not None
    out: Tensor = model.get_submodule(model.config.ctc_prefix)(encoded)
    return out


def transducer_logits(model: ConformerModel, encoded: Tensor, tokens: Tensor) -> Tensor:
    """(B, T, D), (B, U) -> (B, T, U + 1, V + 1): the blank stands before the labels as the start of the sequence."""
    blank = torch.full_like(tokens[:, :1], len(model.config.tokens))
    predicted, _ = model.decoder(torch.cat([blank, tokens], 1))
    out: Tensor = model.joint(encoded, predicted)
    return out

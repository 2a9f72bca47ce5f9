"""From a step's number to its batch: which clips, joined, augmented, padded. The same number makes the same batch.

    batch = Batches(clips, schedule, config, seconds=48, seed=1)[step]

A torch Dataset over steps: a DataLoader with workers prepares batches ahead where there are cores for it, and a resumed
run goes on with the batch that would have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nemostream.models.config import EncoderConfig
from train.augment import Augmenter
from train.data import SAMPLE_RATE, Clip, Samples
from train.schedule import Schedule

FRAME_SAMPLES = 1280
POOL = 400
"""Clips drawn for a batch, of a small corpus as many as it has; the batch is cut from them, sorted by length, so that
little of it is padding."""
MOST_ROWS = 96
JOINED = 0.25
"""Share of rows in which a second sentence follows after a pause: speech goes on after an end of sentence."""
PAUSED, PAUSE_S = 0.15, (1.0, 6.0)
"""Share of batches in which everybody is silent for so long before speaking, as a microphone mostly is: a model that
never had a long silence hears worse what comes behind it. All rows of a batch, so that little of it is padding."""


TENSORS = ("samples", "lengths", "tokens", "token_lengths", "voiced")


@dataclass(slots=True)
class Batch:
    """samples (B, N) float32, lengths (B,) int64; tokens (B, U) int64, token_lengths (B,); voiced (B, 2) float32: where
    speech begins and ends, in encoder frames (for the flat start); the lookahead to train."""

    samples: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    voiced: Tensor
    lookahead: int

    def to(self, device: torch.device) -> Batch:
        parts = {name: getattr(self, name).to(device, non_blocking=True) for name in TENSORS}
        return Batch(**parts, lookahead=self.lookahead)

    @property
    def hours(self) -> float:
        return float(self.lengths.sum()) / SAMPLE_RATE / 3600


class Batches(Dataset[Batch]):
    """`seconds` of speech make a batch. Every draw comes from (seed, step) alone."""

    def __init__(
        self, clips: Sequence[Clip], schedule: Schedule, config: EncoderConfig, seconds: float, seed: int
    ) -> None:
        self.clips, self.schedule, self.config = clips, schedule, config
        self.seconds, self.seed = seconds, seed
        self.augmenter = Augmenter(clips)
        weights = np.array([clip.weight for clip in clips])
        self.cumulative = np.cumsum(weights / weights.sum())

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        clean = self.schedule.stage(step).clean
        lookahead = int(rng.choice(self.config.lookaheads, p=self.config.lookahead_weights))
        paused = not clean and rng.random() < PAUSED
        picked = self.pick(clean, self.seconds / 2 if paused else self.seconds, rng)
        return collate([self.row(clips, clean, paused, rng) for clips in picked], lookahead)

    def draw(self, count: int, rng: np.random.Generator) -> list[Clip]:
        indices = np.searchsorted(self.cumulative, rng.random(count)).clip(max=len(self.clips) - 1)
        return [self.clips[i] for i in indices]

    def pick(self, clean: bool, speech_s: float, rng: np.random.Generator) -> list[tuple[Clip, ...]]:
        """Rows of one clip, or two that follow each other, of about one length and `speech_s` seconds together."""
        size = min(POOL, len(self.clips))
        singles, seconds = self.draw(size, rng), self.draw(size, rng)
        joined = (rng.random(size) < JOINED) & (not clean)
        pool = [(a, b) if join else (a,) for a, b, join in zip(singles, seconds, joined, strict=True)]
        pool.sort(key=_samples)
        start = int(rng.integers(size))
        picked: list[tuple[Clip, ...]] = []
        total = 0
        for clips in pool[start:] + pool[:start][::-1]:  # a start near the end goes on with the next shorter ones
            if total >= speech_s * SAMPLE_RATE or len(picked) == MOST_ROWS:
                break
            picked.append(clips)
            total += _samples(clips)
        return picked

    def row(
        self, clips: tuple[Clip, ...], clean: bool, paused: bool, rng: np.random.Generator
    ) -> tuple[Samples, tuple[int, ...]]:
        """Samples and tokens of one row. 0.3 to 0.6 s of silence stand behind, for the last word to come out."""
        tokens = tuple(token for clip in clips for token in clip.tokens)
        if clean:
            return np.pad(clips[0].wave(), (0, SAMPLE_RATE // 3)), tokens
        parts = [silence(*(PAUSE_S if paused else (0.0, 0.5)), rng), clips[0].wave()]
        for clip in clips[1:]:
            parts += [silence(*(PAUSE_S if paused else (0.3, 0.6)), rng), clip.wave()]
        parts.append(silence(0.3, 0.6, rng))
        return self.augmenter.apply(np.concatenate(parts), rng), tokens


def _samples(clips: tuple[Clip, ...]) -> int:
    return sum(len(clip.samples) for clip in clips)


def silence(low_s: float, high_s: float, rng: np.random.Generator) -> Samples:
    return np.zeros(int(SAMPLE_RATE * rng.uniform(low_s, high_s)), np.float32)


def collate(rows: Sequence[tuple[Samples, tuple[int, ...]]], lookahead: int) -> Batch:
    """Pad samples and tokens with zeros to the longest row."""
    lengths = torch.tensor([len(wave) for wave, _ in rows])
    token_lengths = torch.tensor([len(tokens) for _, tokens in rows])
    samples = torch.zeros(len(rows), int(lengths.max()))
    tokens = torch.zeros(len(rows), int(token_lengths.max()), dtype=torch.long)
    for i, (wave, ids) in enumerate(rows):
        samples[i, : len(wave)] = torch.from_numpy(wave)
        tokens[i, : len(ids)] = torch.tensor(ids)
    voiced = torch.tensor([voiced_frames(wave) for wave, _ in rows])
    return Batch(samples, lengths, tokens, token_lengths, voiced, lookahead)


def voiced_frames(wave: Samples) -> tuple[float, float]:
    """First and last sample above 3 % of the peak, in encoder frames."""
    loud = np.flatnonzero(np.abs(wave) > 0.03 * np.abs(wave).max())
    return (loud[0] / FRAME_SAMPLES, loud[-1] / FRAME_SAMPLES + 1) if len(loud) else (0.0, 1.0)

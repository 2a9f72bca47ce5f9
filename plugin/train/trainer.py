"""The loop: batch, losses, step, average; and now and then a line, an evaluation, a checkpoint.

    trainer = Trainer(settings, template, clips, evaluation, encode and decode)
    trainer.resume()
    trainer.run(minutes=60)

State is one file, resume.pt, replaced in one piece. What a step does follows from its number and that state alone, so a
run that was killed repeats the steps since the last save and goes on as if nothing had been.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nemostream.models.checkpoint import FILTERS, WINDOW
from nemostream.models.heads import ConformerModel
from train.batches import Batch, Batches
from train.data import Clip
from train.evaluate import Evaluation, ctc_log_probs, transducer_logits
from train.features import TRACTS, LogMel, mask_spectrum
from train.losses import ctc_loss, flat_loss, flat_targets, per_token, rnnt_loss
from train.optimizer import Muon
from train.progress import History, Row, line
from train.replicas import Replicas
from train.save import Template
from train.schedule import Schedule

RESUME, LAST, BEST = "resume.pt", "last.nemo", "best.nemo"
AVERAGE = 0.999
"""Decay per step of the running average of the weights: it is what is evaluated and saved as .nemo."""


@dataclass(frozen=True, slots=True)
class Settings:
    out: Path
    device: str = "cpu"
    seconds: float = 48.0
    seed: int = 1
    workers: int = 0
    log_steps: int = 50
    evaluate_steps: int = 1000
    save_seconds: float = 240.0
    clip_norm: float = 1.0
    weight_decay: float = 1e-2


class Trainer:
    """A run. `decode` turns token ids into text; `evaluation` None leaves held-out speech alone."""

    def __init__(
        self,
        settings: Settings,
        schedule: Schedule,
        template: Template,
        clips: Sequence[Clip],
        evaluation: Evaluation | None,
        decode: Callable[[Sequence[int]], str],
        *,
        from_scratch: bool = False,
        replicas: Replicas | None = None,
    ) -> None:
        self.replicas = replicas or Replicas()
        self.settings, self.schedule, self.template = settings, schedule, template
        self.evaluation, self.decode = evaluation, decode
        self.device = torch.device(settings.device)
        config, state = template.checkpoint.config, template.checkpoint.state
        torch.manual_seed(settings.seed)
        self.model = (ConformerModel(config) if from_scratch else template.checkpoint.model()).to(self.device)
        self.average = copy.deepcopy(self.model).eval()
        self.mel = LogMel(config.mel, state[FILTERS], state[WINDOW]).to(self.device)
        if self.device.type == "cpu":
            _keep_float32(self.model)
        _drop_nothing(self.model)
        self.letters = torch.tensor([max(0.5, len(piece.replace("▁", ""))) for piece in config.tokens])
        self.optimizer = Muon(self.model, matrices=self.model.encoder.layers, weight_decay=settings.weight_decay)
        self.batches = Batches(clips, schedule, config.encoder, settings.seconds, settings.seed)
        self.step, self.hours, self.minutes, self.best = 0, 0.0, 0.0, math.inf
        self.history = History()
        self.stopping = False  # what this replica wants
        self.stopped = False  # what all have agreed to

    def run(self, minutes: float, last_step: int | None = None) -> None:
        """Train until `minutes` have passed, `last_step` is done, the planned hours are heard, or `stopping` is set in
        one of the replicas; then save. A batch's number is the step's, times the replicas, and the replica's."""
        count, rank = self.replicas.count, self.replicas.rank
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(self.step * count + rank, 1 << 40, count),
            num_workers=self.settings.workers,
            prefetch_factor=4 if self.settings.workers else None,
        )
        begun = saved = logged = time.monotonic()
        before = self.minutes
        recent: list[Row] = []
        heard = self.hours
        for batch in loader:
            self.stopping |= time.monotonic() - begun >= minutes * 60
            recent.append(self.advance(batch.to(self.device)))
            now = time.monotonic()
            self.minutes = before + (now - begun) / 60
            if self.step % self.settings.log_steps == 0:
                self.report(recent, (self.hours - heard) * 3600 / (now - logged))
                recent, heard, logged = [], self.hours, now
            ended = self.hours >= self.schedule.hours
            if self.step % self.settings.evaluate_steps == 0 or ended:
                self.evaluate()
            done = self.stopped or ended or self.step == last_step
            if done or now - saved >= self.settings.save_seconds:
                self.save()
                saved = time.monotonic()
            if done:
                return

    def advance(self, batch: Batch) -> Row:
        """One update. Returns its losses per token."""
        number = self.step * self.replicas.count + self.replicas.rank
        torch.manual_seed(self.settings.seed * 1_000_003 + number)  # for vocal tracts and masks
        rate = self.schedule.rate(self.step, self.hours)
        self.optimizer.rate = rate
        self.model.train()
        self.model.zero_grad()
        loss, row = self.losses(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        hours, stopping = self.replicas.mean(list(self.model.parameters()), (batch.hours, float(self.stopping)))
        self.stopped = stopping > 0
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.follow()
        self.step += 1
        self.hours += hours
        return row | {"norm": norm.item(), "rate": rate}

    def mixed(self) -> torch.autocast:
        """bf16 where the hardware multiplies it: a CPU that only imitates it takes longer than in float32."""
        enabled = (
            self.device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def losses(self, batch: Batch) -> tuple[Tensor, Row]:
        """The stage's weighted loss, and each loss by name."""
        stage = self.schedule.stage(self.step)
        tracts = None if stage.clean else torch.randint(len(TRACTS), (len(batch.lengths),)).to(self.device)
        mel, lengths = self.mel(batch.samples, batch.lengths, tracts)
        if not stage.clean:
            mel = mask_spectrum(mel, lengths)
        with self.mixed():
            encoded, frames = self.model.encoder(mel, lengths, batch.lookahead)
        encoded = encoded.float()
        usable = frames >= batch.token_lengths + 2  # too fast for CTC: a repeated label needs a blank between
        log_probs = ctc_log_probs(self.model, encoded)
        ctc = per_token(ctc_loss(log_probs, batch.tokens, frames, batch.token_lengths), batch.token_lengths, usable)
        total, row = stage.ctc * ctc, {"ctc": ctc.item()}
        if stage.rnnt:
            # Every other row, now the ones and now the others: a row's lattice costs half of what its encoding does.
            part = slice(self.step % 2 if len(frames) > 1 else 0, None, 2)
            rows, row_lengths = batch.tokens[part, : batch.token_lengths[part].max()], batch.token_lengths[part]
            with self.mixed():
                logits = transducer_logits(self.model, encoded[part, : frames[part].max()], rows)
            rnnt = per_token(rnnt_loss(logits, rows, frames[part], row_lengths), row_lengths, usable[part])
            total, row["rnnt"] = total + stage.rnnt * rnnt, rnnt.item()
        if stage.flat:
            targets = flat_targets(
                batch.tokens, batch.token_lengths, batch.voiced, self.letters.to(self.device), log_probs.shape
            )
            flat = flat_loss(log_probs, targets, frames)
            total, row["flat"] = total + stage.flat * flat, flat.item()
        return total, row

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average a little towards the weights; faster at first, when it has little to average."""
        keep = min(AVERAGE, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)

    def report(self, recent: Sequence[Row], speed: float) -> None:
        if not self.replicas.first:
            return
        mean = {key: sum(row[key] for row in recent) / len(recent) for key in recent[-1] if key in recent[0]}
        row = {"step": self.step, "hours": self.hours, "minutes": self.minutes, "speed": speed, **mean}
        self.history.train.append(row)
        print(line(row), flush=True)

    def evaluate(self) -> None:
        """WER of the average; the .nemo with the lowest sum over sets and lookaheads is kept as best.nemo."""
        if self.evaluation is None:
            return
        path = self.settings.out / BEST
        results = self.evaluation.run(self.template.trained(self.average, path), self.average, self.decode)
        row = {"step": self.step, "hours": self.hours, "minutes": self.minutes, **results}
        self.history.held_out.append(row)
        print("held out:  " + line(row), flush=True)
        score = sum(value for key, value in results.items() if key.startswith("wer"))
        if score < self.best:
            self.best = score
            self.template.save(self.average, path)

    def save(self) -> None:
        """Write resume.pt, last.nemo, history.json and curve.png."""
        if not self.replicas.first:
            return
        out = self.settings.out
        partial = out / "resume.partial"
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": {"step": self.step, "hours": self.hours, "minutes": self.minutes, "best": self.best},
            "history": asdict(self.history),
        }
        torch.save(state, partial)
        os.replace(partial, out / RESUME)
        self.template.save(self.average, out / LAST)
        self.history.save(out)

    def resume(self) -> bool:
        """Go on from resume.pt if there is one; the device may be another than the one that wrote it."""
        path = self.settings.out / RESUME
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = History(**state["history"])
        progress = state["progress"]
        self.step, self.hours = int(progress["step"]), progress["hours"]
        self.minutes, self.best = progress["minutes"], progress["best"]
        return True


def _keep_float32(model: ConformerModel) -> None:
    """On a CPU the strided convolutions take four times as long in bf16, and half of that in NHWC layout (measured on
    Zen 5 with oneDNN: 51 s of audio, forward and backward, 0.52 s in bf16, 0.28 s in float32, 0.14 s with NHWC)."""
    front = model.encoder.pre_encode
    front.to(memory_format=torch.channels_last)
    front.forward = torch.autocast("cpu", enabled=False)(front.forward)  # type: ignore[method-assign]


def _drop_nothing(model: ConformerModel) -> None:
    """A model this small learns too little and not by heart (its losses on augmented speech that it trains on are those
    on held-out speech), and random numbers take a tenth of a CPU's step."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.LSTM):
            module.dropout = 0.0

"""A run on the toy: it learns, it goes on as if it had not been stopped, and what it saves is read back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nemostream.models.checkpoint import read_checkpoint
from tests.speech import utterance
from train.batches import collate
from train.data import Clip
from train.replicas import Replicas
from train.save import Template
from train.schedule import Schedule
from train.trainer import BEST, LAST, Settings, Trainer


@pytest.fixture(scope="module")
def template(toy_nemo: Path) -> Template:
    return Template.read(toy_nemo)


def toy_clips(template: Template) -> list[Clip]:
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=template.tokenizer)
    clips = []
    for seed in range(6):
        words, samples = utterance(seed)
        pcm = (samples.clip(-1, 1) * 32767).astype(np.int16)
        clips.append(Clip(pcm, " ".join(words), "tones", tuple(tokenizer.encode(" ".join(words))), 1.0))
    return clips


def trainer(template: Template, out: Path, schedule: Schedule | None = None, *, from_scratch: bool = False) -> Trainer:
    def decode(ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    settings = Settings(out, seconds=6, log_steps=1)
    return Trainer(
        settings, schedule or Schedule(), template, toy_clips(template), None, decode, from_scratch=from_scratch
    )


def test_a_resumed_run_takes_the_same_next_step(template: Template, tmp_path: Path) -> None:
    run = trainer(template, tmp_path)
    for step in range(2):
        run.advance(run.batches[step])
    run.save()
    resumed = trainer(template, tmp_path)
    assert resumed.resume()
    rows = [each.advance(each.batches[each.step]) for each in (run, resumed)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)
    assert resumed.step == run.step == 3 and resumed.hours == pytest.approx(run.hours)
    for ours, theirs in zip(run.average.parameters(), resumed.average.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_what_was_saved_is_read_back_equal(template: Template, tmp_path: Path) -> None:
    run = trainer(template, tmp_path)
    run.advance(run.batches[0])
    run.save()
    read = read_checkpoint(tmp_path / LAST)
    assert read.config == template.checkpoint.config
    for name, value in run.average.state_dict().items():
        torch.testing.assert_close(read.state[name], value, rtol=0, atol=0)
    read.model()
    again = Template.read(tmp_path / LAST)
    assert again.members == template.members and again.raw == template.raw


def test_half_precision_halves_the_file(template: Template, tmp_path: Path) -> None:
    model = template.checkpoint.model()
    template.save(model, tmp_path / BEST)
    template.save(model, tmp_path / "half.nemo", half=True)
    sizes = [(tmp_path / name).stat().st_size for name in (BEST, "half.nemo")]
    assert sizes[1] < 0.6 * sizes[0]
    read_checkpoint(tmp_path / "half.nemo").model()


def test_a_flat_start_learns_at_once(template: Template, tmp_path: Path) -> None:
    schedule = Schedule(peak_rate=2e-3, flat_steps=8, clean_steps=8, rnnt_step=8, warm_steps=4)
    run = trainer(template, tmp_path, schedule, from_scratch=True)
    rows = [run.advance(run.batches[0]) for _ in range(8)]  # of the same speech: others are harder or easier
    assert rows[-1]["flat"] < 0.8 * rows[0]["flat"]
    assert "rnnt" in run.advance(run.batches[8])


def test_the_rate_rises_holds_and_falls_to_zero() -> None:
    schedule = Schedule(hours=100, peak_rate=1e-3)
    assert schedule.rate(0, 0) < 1e-5
    assert schedule.rate(10_000, 50) == schedule.rate(300, 5) == 1e-3
    assert schedule.rate(10_000, 90) == pytest.approx(5e-4)
    assert schedule.rate(10_000, 100) == 0


def test_rnnt_takes_every_other_row_in_turn(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss is what the rows of its turn have alone; one row has no other turn."""
    run = trainer(template, tmp_path)
    run.model.eval()
    rows = [run.batches.row((clip,), True, False, np.random.default_rng(0)) for clip in run.batches.clips[:5]]
    monkeypatch.setattr("train.trainer.mask_spectrum", lambda mel, lengths: mel)
    monkeypatch.setattr("train.trainer.TRACTS", (1.0,))

    def rnnt(step: int, chosen: list[int]) -> float:
        run.step = step
        return float(run.losses(collate([rows[i] for i in chosen], 6))[1]["rnnt"])

    tokens = [len(rows[i][1]) for i in range(5)]
    alone = [rnnt(step, [i]) for step, i in enumerate(range(5))]
    for step, turn in ((0, [0, 2, 4]), (1, [1, 3])):
        expected = sum(alone[i] * tokens[i] for i in turn) / sum(tokens[i] for i in turn)
        assert rnnt(step, [0, 1, 2, 3, 4]) == pytest.approx(expected, rel=1e-4)


def test_a_replica_that_is_told_to_stop_in_a_step_stops_with_the_others_after_the_next(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stopped by itself would leave the others waiting for its gradients."""
    run = trainer(template, tmp_path)
    mean = Replicas.mean

    def told_late(replicas: Replicas, *given: Any) -> list[float]:
        sums = mean(replicas, *given)
        run.stopping = True
        return sums

    monkeypatch.setattr(Replicas, "mean", told_late)
    run.run(minutes=60)
    assert run.step == 2

"""The recipe from nothing to captions, small: eight sentences of one voice, learnt by heart."""

from __future__ import annotations

from pathlib import Path

from tests.train import heard

CLIPS = 8
SHORTER = ("--clips", str(CLIPS), "--hours", "1", "--flat-steps", "40", "--rnnt-step", "80")
"""Than the run of docs/training.md, which tests/proof/training.py does in full."""


def test_speech_becomes_a_model_that_the_engine_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    told = heard.small_run(run, *SHORTER, "--steps", "60")
    assert "saved at step 60" in told
    told = heard.small_run(run, *SHORTER)
    assert "going on at step 60" in told and "1.0 h heard" in told
    ctc = heard.losses(run, "ctc")
    assert ctc[-1] < ctc[0] / 5
    texts, sounds = heard.clips(CLIPS)
    offline = heard.offline(run / "last.nemo", sounds)
    bundle = heard.convert(run / "last.nemo", tmp_path / "bundle")
    assert heard.streamed(bundle, "fp32", sounds) == offline
    assert heard.word_error_rate(texts, offline) <= 0.1
    assert heard.word_error_rate(texts, heard.streamed(bundle, "int8", sounds)) <= 0.1

"""Sentences become speech that can be trained on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from train.data import load_corpus
from train.speak import make_shard
from train.speeches import of_text, sentences

ORDERS = "turn the lights off\nplay some music\n"
QUESTIONS = "What's the time?\n"


def speak(out: Path, *options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.speak", str(out), *options]
    environment = None if path is None else {"PATH": path}
    return subprocess.run(command, cwd=ROOT / "plugin", env=environment, capture_output=True, text=True)


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    (tmp_path / "orders.txt").write_text(ORDERS)
    (tmp_path / "questions.txt").write_text(QUESTIONS)
    return ["--text", str(tmp_path / "orders.txt"), str(tmp_path / "questions.txt")]


def test_what_is_spoken_can_be_trained_on_and_is_made_once(tmp_path: Path, texts: list[str]) -> None:
    out = tmp_path / "speech"
    options = ["--voice", "hibari", *texts, "--hours", "0.003", "--workers", "1"]
    done = speak(out, *options)
    assert done.returncode == 0, done.stderr
    clips = load_corpus([out], frozenset(), lambda text: [len(text)], tmp_path / "cache")
    assert {clip.text for clip in clips} <= {"turn the lights off", "play some music", "what's the time"}
    assert sum(len(clip.samples) for clip in clips) / 16_000 == pytest.approx(12, abs=3)
    assert all(abs(clip.wave()).max() > 0.1 for clip in clips)
    before = (out / "0000.opus").stat().st_mtime_ns
    assert speak(out, *options).returncode == 0
    assert (out / "0000.opus").stat().st_mtime_ns == before
    make_shard(tmp_path / "again", "hibari", 1, 0, [ORDERS.splitlines(), QUESTIONS.splitlines()], 0.003 * 3600)
    assert (tmp_path / "again" / "0000.jsonl").read_text() == (out / "0000.jsonl").read_text()


def test_what_is_missing_is_said(tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "empty.txt").write_text("   \ncall 911\n")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    for done, says in (
        (speak(tmp_path, "--voice", "flite", *texts, path=""), "apt install flite"),
        (speak(tmp_path, "--voice", "joe", *texts), "pip install piper-tts"),
        (speak(tmp_path, "--voice", "hibari", "--text", str(tmp_path / "none.txt")), "none.txt"),
        (speak(tmp_path, "--voice", "hibari", "--text", str(tmp_path / "empty.txt")), "empty.txt: no sentence"),
        (speak(tmp_path, "--voice", "hibari", "--text", str(tmp_path / "latin.txt")), "latin.txt is no text"),
    ):
        assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


def test_a_speech_is_cut_into_phrases(tmp_path: Path) -> None:
    text = (
        "My fellow Americans: I am “glad” to be here -- we’ve\nwaited long. In 1999 we did not. No. "
        + "word " * 15
        + "."
    )
    phrases = ["I am glad to be here", "we've waited long"]
    assert list(of_text(text)) == ["My fellow Americans", *phrases]
    for year in (1899, 1900):
        (tmp_path / f"{year}_name_p.txt").write_text(text)
    assert list(sentences(tmp_path))[1:] == phrases

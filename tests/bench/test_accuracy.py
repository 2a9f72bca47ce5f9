"""Accuracy is computed, not made up; batching and alignment do what they say; what cannot be measured is a sentence."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jiwer
import numpy as np
import pytest

from bench.accuracy import manifest
from bench.accuracy.__main__ import main
from bench.accuracy.alignment import align, word_begins
from bench.accuracy.edits import Edits, Interval
from bench.accuracy.hearing import Way, answer_to_flush, hear
from bench.accuracy.judging import Judged
from bench.accuracy.manifest import Clip
from bench.accuracy.report import draw
from bench.accuracy.rooms import Room
from bench.accuracy.row import Variant, row_of
from nemostream.encoders import Floats
from nemostream.model import Model
from nemostream.models import catalog
from nemostream.models.bundle import Bundle
from tests.clips import TEXTS, clip, path
from tests.speech import utterance

WAY = Way(160, "rnnt")
FRAME = 1280


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(catalog.resolve(None), None, 1)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [Clip.of(clip(name), text) for name, text in TEXTS.items()]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A manifest of the tests' clips."""
    lines = [json.dumps({"audio": str(path(name)), "text": text}) for name, text in TEXTS.items()]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    return tmp_path


# Errors and intervals


def test_exact_texts_have_no_errors_however_they_are_written() -> None:
    found = [text.title() + "." for text in TEXTS.values()]
    edits = Edits.of(list(TEXTS.values()), found)
    assert edits.words.sum() == len(" ".join(TEXTS.values()).split())
    assert not edits.word_errors.any() and not edits.character_errors.any()


def test_errors_count_words_and_characters_clip_by_clip() -> None:
    edits = Edits.of(["turn it off", "stop", "", "გამარჯობა ყველას"], ["turn off", "", "oh no", "გამარჯობა, ყველას!"])
    assert edits.words.tolist() == [3, 1, 0, 2] and edits.word_errors.tolist() == [1, 1, 2, 0]
    assert edits.characters.tolist() == [11, 4, 0, 16] and edits.character_errors.tolist() == [3, 4, 5, 0]


def _interval(clips: int) -> Interval:
    rng = np.random.default_rng(1)
    words = rng.integers(3, 12, clips)
    return Interval.of(rng.binomial(words, 0.2), words, seed=0)


def test_an_interval_holds_the_rate_and_shrinks_with_more_clips() -> None:
    intervals = [_interval(clips) for clips in (1, 12, 120, 1200)]
    assert all(i.low <= i.rate <= i.high for i in intervals)
    widths = [i.high - i.low for i in intervals[1:]]
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0
    assert _interval(120) == _interval(120)


def test_a_difference_is_of_the_same_clips() -> None:
    """What makes a clip hard for both does not hide that one errs once more in each."""
    rng = np.random.default_rng(1)
    words = np.full(60, 8)
    before = rng.integers(0, 7, 60)
    apart = [Interval.of(errors, words, seed=0) for errors in (before, before + 1)]
    difference = Interval.of_difference(before + 1, before, words, seed=0)
    assert apart[0].high > apart[1].low
    assert difference == Interval(0.125, 0.125, 0.125)


# Hearing


def test_batching_changes_neither_texts_nor_times(model: Model, clips: list[Clip]) -> None:
    together = hear(model, clips, WAY)
    alone = hear(model, clips, Way(160, "rnnt", rows=1))
    assert all(its.text for its in together)
    for its, lone in zip(together, alone, strict=True):
        assert its.text == lone.text and (its.shown, its.final) == (lone.shown, lone.final)
        assert [w.start_sample for w in its.words] == [w.start_sample for w in lone.words]


def test_silence_before_a_clip_is_heard_and_not_counted(model: Model, clips: list[Clip]) -> None:
    near, far = (hear(model, clips[:1], Way(160, "ctc", lead))[0] for lead in (0.0, 2.0))
    assert far.before - near.before == 2 * 16_000
    for its in (near, far):
        assert its.words and abs(its.words[0].start_sample - clips[0].begins) < 5 * FRAME
        assert clips[0].begins < min(its.shown) < clips[0].begins + 16_000
        assert its.final is not None and its.final > clips[0].ends


def test_a_flush_is_answered_within_the_steps_it_needs(model: Model, clips: list[Clip]) -> None:
    steps, ms = answer_to_flush(model, clips[:2], WAY)
    assert model.flush_samples / (160 * 16) <= steps <= 1 + model.flush_samples / (160 * 16) + 1 and ms > 0


def test_times_are_of_words_that_are_right(model: Model, clips: list[Clip]) -> None:
    heard = hear(model, clips, WAY)
    begins = word_begins(model, clips)
    right = Judged.of(clips, heard, begins)
    assert all(its is not None for its in begins)
    assert [len(its) for its in right.onsets] == [len(c.text.split()) for c in clips]
    assert all(0 < ms < 1000 for column in (right.first, right.final) for its in column for ms in its)
    others = [Clip(c.samples, "nobody says so", c.begins, c.ends) for c in clips]
    wrong = Judged.of(others, heard, begins)
    assert not any(itertools.chain(wrong.first, wrong.final, wrong.onsets, wrong.sound_onset))
    half = right.part([0, 2])
    assert half.first == [right.first[0], right.first[2]] and len(half.edits.words) == 2


def test_a_room_that_loses_packets_gives_every_clip_its_own_text(clips: list[Clip]) -> None:
    trimmed = [Clip.of(c.samples[max(0, c.begins - 800) : c.ends + 800], c.text) for c in clips]
    spoken = sorted(trimmed, key=lambda c: len(c.samples))[:4]
    room = Room(catalog.resolve(None), None, 1, 0.05, speakers=2)  # so each has two clips to say
    heard = room.hear(spoken, Way(160, "rnnt", lead=0.0))
    assert 0 < room.lost < 0.3 and room.sent > 300
    for its, c in zip(heard, spoken, strict=True):
        assert min(TEXTS.values(), key=lambda text: jiwer.cer(text, its.text)) == c.text
        assert its.final is not None and its.final > c.ends


# Alignment


def test_the_alignment_is_the_likeliest_of_all_paths() -> None:
    rng = np.random.default_rng(0)
    for tokens in ([0], [0, 1], [1, 1], [0, 0, 1]):
        scores = np.log(rng.dirichlet(np.ones(3), 6)).astype(np.float32)
        likeliest = max(
            (path for path in itertools.product(range(3), repeat=6) if _written(path) == tokens),
            key=lambda path: sum(scores[t, label] for t, label in enumerate(path)),
        )
        assert align(scores, tokens) == _begins(likeliest)
    assert align(scores[:2], [0, 0]) is None


def _written(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != 2]


def _begins(path: tuple[int, ...]) -> list[int]:
    return [t for t, label in enumerate(path) if label != 2 and (t == 0 or path[t - 1] != label)]


def test_known_words_are_aligned_with_their_sound(toy_bundle: Bundle) -> None:
    """Between the begin of the word and the frame behind its end: a word of the toy language is known by its last
    tone."""
    toy = Model.load(toy_bundle.path, "fp32", 1)
    spoken = [utterance(seed) for seed in range(6)]
    found = word_begins(toy, [Clip.of(samples, " ".join(words)) for words, samples in spoken])
    for (words, samples), begins in zip(spoken, found, strict=True):
        spans = _sounds(samples)
        assert begins is not None and len(begins) == len(spans) == len(words)
        assert all(first <= at <= last + FRAME for at, (first, last) in zip(begins, spans, strict=True))


def _sounds(samples: Floats) -> list[tuple[int, int]]:
    """First and last sample of each word: words have 60 ms between them at least, tones have not."""
    loud = np.flatnonzero(np.abs(samples) > 0.03)
    gaps = np.flatnonzero(np.diff(loud) > 640)
    return list(zip([loud[0], *loud[gaps + 1]], [*loud[gaps], loud[-1]], strict=True))


def test_what_a_clip_has_no_time_for_is_not_aligned(model: Model) -> None:
    assert word_begins(model, [Clip.of(np.zeros(800, np.float32), "far too many words for a moment " * 9)]) == [None]


# Manifests and the command


def test_a_manifest_is_a_file_a_folder_or_shards(listed: Path) -> None:
    whole = manifest.read(listed)
    assert [its.text for its in whole] == list(TEXTS.values())
    assert [its.text for its in manifest.read(listed / "manifest.jsonl", count=2)] == [whole[0].text, whole[2].text]
    lines = (listed / "manifest.jsonl").read_text()
    (listed / "manifest.jsonl").unlink()
    (listed / "0000.jsonl").write_text(lines)
    assert len(manifest.read(listed)) == len(TEXTS)
    part = {"audio_filepath": str(path("monday")), "offset": 0.5, "duration": 0.25, "text": "day"}
    (listed / "0001.jsonl").write_text(json.dumps(part))
    last = manifest.read(listed)[-1]
    assert np.array_equal(last.samples, clip("monday")[8000:12_000])


def test_sets_are_templates_and_sentences(clips: list[Clip]) -> None:
    general = frozenset([clips[1].text])
    assert manifest.sets(clips, general) == {"all": [0, 1, 2, 3, 4], "templates": [0, 2, 3, 4], "general": [1]}
    assert manifest.sets(clips, frozenset()) == {"all": [0, 1, 2, 3, 4]}


def test_the_command_fills_table_json_and_picture(
    listed: Path, toy_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = listed / "out.json", listed / "out.png"
    general = listed / "general.txt"
    general.write_text("I did not receive my refund!\n")
    options = ["--manifest", str(listed), "--general", str(general), "--model", "en-starter", str(toy_bundle.path)]
    main([*options, "--chunk-ms", "160", "--threads", "1", "--json", str(out), "--png", str(picture)])
    held = json.loads(out.read_text())
    assert [row["kind"] for row in held["rows"]] == 2 * ["all", "templates", "general"]
    assert [row["clips"] for row in held["rows"][:3]] == [5, 4, 1]
    first, toy = held["rows"][0], held["rows"][3]
    assert first["wer"]["rate"] < 0.5 < toy["wer"]["rate"] and first["counted"]["onset"] > 0
    assert str(listed) not in out.read_text()
    difference = held["differences"][0]
    assert difference["wer"]["rate"] == pytest.approx(toy["wer"]["rate"] - first["wer"]["rate"], abs=1e-4)
    assert picture.read_bytes().startswith(b"\x89PNG")
    table, others = capsys.readouterr().out.split("\n\n")
    assert len(table.splitlines()) == 2 + 6 and len({line.count("|") for line in table.splitlines()}) == 1
    assert others.splitlines()[2].endswith("| worse |")


def test_the_picture_shows_every_row(clips: list[Clip]) -> None:
    """Also where a later set has more errors than an earlier one."""
    variant = Variant("model", "int8", "rnnt")
    texts = [c.text for c in clips]
    few, many = (Edits.of(texts, found) for found in (texts, [""] * len(texts)))
    rows = [
        row_of(variant, Way(160, "rnnt", lead), kind, Judged(edits, [], [], [], []), None)
        for kind, edits in (("few", few), ("many", many))
        for lead in (0.3, 5.0)
    ]
    axes = draw(rows, "").axes
    assert [its.get_title() for its in axes] == ["few", "many"]
    for its, rate in zip(axes, (0.0, 100.0), strict=True):
        shown = [y for line in its.get_lines() for y in line.get_ydata()]
        assert rate in shown and all(its.get_ylim()[0] <= y <= its.get_ylim()[1] for y in shown)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--manifest", "nowhere"], "bench.accuracy: nowhere is no manifest: give a .jsonl, or a folder"),
        (["--model", "nothing"], "bench.accuracy: no model 'nothing'"),
        (["--model", "en-starter", "en-starter"], "bench.accuracy: two models have the same name"),
        (["--chunk-ms", "320"], "en-starter has no chunk of 320 ms; it offers 80, 160, 560, 1120"),
        (["--precision", "fp32"], "holds int8, not fp32"),
        (["--general", "nowhere.txt"], "bench.accuracy: nowhere.txt cannot be read"),
        (["--lead", "soon"], "'soon' is no list of seconds"),
        (["--room", "100"], "'100' is no list of percents"),
        (["--room", "0", "--decoder", "ctc"], "leave out --decoder or --room"),
        (["--clips", "0"], "at least 1 clip"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    options: list[str], sentence: str, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ["--json", str(listed / "out.json"), "--png", str(listed / "out.png")]
    with pytest.raises(SystemExit) as ended:
        main(["--manifest", str(listed), *results, *options])
    said = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err.splitlines()[-1]
    assert sentence in said and "\n" not in said
    assert not (listed / "out.json").exists()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("no json", "line 1: it is no object of JSON"),
        ('{"audio": "a.wav"}', "line 1: it has no 'text'"),
        ('{"text": "a"}', "line 1: it has no 'audio_filepath'"),
        ('{"audio": "a.wav", "text": "a"}', "a.wav does not exist"),
        (json.dumps({"audio": str(path("monday")), "start": 99.0, "text": "a"}), "ends before 99 s"),
        ("", "lists no clips"),
    ],
)
def test_a_bad_line_is_named(line: str, sentence: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(line)
    with pytest.raises(SystemExit) as ended:
        main(["--manifest", str(bad)])
    assert sentence in str(ended.value.code) and str(bad.parent) in str(ended.value.code)

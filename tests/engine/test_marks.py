"""What a model says beside text: ends of utterances, languages; and the language that it is asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import AUTO, Endpointing, Failed, Final, Interim, Preflight, Refused, Started, Update
from tests.engine.driver import Driver, load
from tests.speech import utterance

SAMPLES = np.concatenate([utterance(seed)[1] for seed in range(3)])


@pytest.fixture(scope="module")
def eou(kind_bundle: Callable[[str], Bundle]) -> Model:
    return load(kind_bundle("eou").path)


@pytest.fixture(scope="module")
def prompted(kind_bundle: Callable[[str], Bundle]) -> Model:
    return load(kind_bundle("prompt").path)


def heard(driver: Driver, stream: int = 1, block: int = 1000) -> list[tuple[int, int]]:
    """The tokens and their frames, all of SAMPLES pushed in blocks."""
    for start in range(0, len(SAMPLES), block):
        driver.push(stream, SAMPLES[start : start + block])
    return [(t.id, t.frame) for t in driver.tokens[stream]]


def test_the_models_own_end_of_an_utterance_is_a_final_at_its_token(eou: Model) -> None:
    driver, pieces = Driver(eou, endpointing=None), eou.bundle.tokens
    found = set()
    for stream in range(8):
        driver.open(stream)
        driver.push(stream, utterance(stream)[1])
        # Every mark closes what was said since the one before; one behind nothing says nothing.
        expected, pending = [], False
        for token in driver.tokens[stream]:
            mark = {"<EOU>": "eou", "<EOB>": "backchannel"}.get(pieces[token.id])
            expected += [mark] if mark and pending else []
            pending = mark is None
        reasons = [final.reason for final in driver.of(stream, Final) if final.reason != "endpoint"]
        assert reasons == expected
        assert not any("<EO" in event.text for kind in (Interim, Preflight, Final) for event in driver.of(stream, kind))
        found |= set(reasons)
    assert found == {"eou", "backchannel"}


def test_a_model_that_ends_utterances_is_not_interrupted_by_a_pause(eou: Model, toy: Model) -> None:
    assert (eou.endpointing.blank_ms or 0) > 1000 and toy.endpointing == Endpointing()


def test_a_flush_ends_with_the_text_alone_and_once(eou: Model) -> None:
    """The uncommitted steps of a flush say marks too; they end nothing, and what was given does not come again."""
    driver = Driver(eou)
    for stream in range(8):
        driver.open(stream)
        samples = utterance(stream)[1]
        blocks = range(0, len(samples), 9000)
        for number, start in enumerate(blocks):
            driver.push(stream, samples[start : start + 9000])
            driver.flush(stream, number)
        finals = driver.of(stream, Final)
        assert [final.flush_id for final in finals if final.flush_id is not None] == list(range(len(blocks)))
        assert not any("<EO" in final.text for final in finals) and not driver.of(stream, Failed)


def test_languages_that_the_model_hears_are_told_and_are_no_text(prompted: Model) -> None:
    driver = Driver(prompted, endpointing=Endpointing(blank_ms=160))
    driver.open(1)
    heard(driver)
    tags = [prompted.bundle.tokens[t.id] for t in driver.tokens[1] if prompted.bundle.tokens[t.id].startswith("<")]
    assert len(set(tags)) > 1 and driver.of(1, Started)[0].language == AUTO
    finals = driver.of(1, Final)
    assert {f"<{final.language}>" for final in finals if final.language} <= set(tags)
    assert len({final.language for final in finals}) > 1
    assert not any("<" in final.text for final in finals)


def test_a_language_is_asked_for_by_its_code_or_by_that_of_another_region(prompted: Model) -> None:
    tokens = {}
    driver = Driver(prompted)
    languages = ("hi-IN", "hi", "hi-XX", "HI-in", "en-US", "en", None)
    for stream, language in enumerate(languages):
        driver.open(stream, language=language)
    for stream in range(len(languages)):
        driver.push(stream, utterance(1)[1], run=False)
    driver.run()
    for stream, language in enumerate(languages):
        tokens[language] = [(t.id, t.frame) for t in driver.tokens[stream]]
    assert tokens["hi-IN"] == tokens["hi"] == tokens["hi-XX"] == tokens["HI-in"] != tokens["en"] == tokens["en-US"]
    assert tokens[None] not in (tokens["hi"], tokens["en"])
    driver = Driver(prompted)
    driver.open(1, language="fr")
    assert driver.of(1, Refused)[0].code == "UnsupportedLanguage"


def test_a_language_changes_with_the_next_chunk_however_the_audio_was_cut(prompted: Model) -> None:
    """And in the middle of a stream: what was said before stays as it is."""
    at = 40_000
    found = []
    for block in (2000, 40_000):
        driver = Driver(prompted, chunk_ms=320)
        driver.open(1, language="en")
        for start in range(0, len(SAMPLES), block):
            if start == at:
                driver.send(Update(1, language="hi"))
            driver.push(1, SAMPLES[start : start + block])
        found.append([(t.id, t.frame) for t in driver.tokens[1]])
    assert found[0] == found[1]
    plain = {}
    for language in ("en", "hi"):
        driver = Driver(prompted, chunk_ms=320)
        driver.open(1, language=language)
        plain[language] = heard(driver)
    chunk = at // (4 * 1280)
    before = [t for t in found[0] if t[1] < 4 * chunk]
    assert before == [t for t in plain["en"] if t[1] < 4 * chunk]
    assert found[0] not in (plain["en"], plain["hi"])


def test_each_of_a_few_rows_of_a_batch_keeps_its_language(prompted: Model) -> None:
    """Most streams are silent: the others are gathered from among them."""
    samples, alone = utterance(1)[1], {}
    for language in ("en", "hi"):
        driver = Driver(prompted)
        driver.open(1, language=language)
        driver.push(1, samples)
        alone[language] = [t.id for t in driver.tokens[1]]
    driver = Driver(prompted)
    for stream in range(8):
        driver.open(stream, language="hi" if stream in (0, 5) else "en")
    for start in range(0, len(samples), 8960):
        for stream in (5, 6):
            driver.push(stream, samples[start : start + 8960], run=False)
        driver.wait(0.3)
    assert [t.id for t in driver.tokens[5]] == alone["hi"] != alone["en"] == [t.id for t in driver.tokens[6]]


def test_a_language_that_the_model_does_not_take_ends_the_stream_typed(prompted: Model) -> None:
    driver = Driver(prompted)
    driver.open(1)
    driver.send(Update(1, language="fr"))
    (failed,) = driver.of(1, Failed)
    assert failed.code == "UnsupportedLanguage"

"""Terms become tokens with the model's own tokenizer, or are refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nemostream.errors import KeytermsError
from nemostream.keyterms import MAX_CHARACTERS, MAX_TERMS, SHARED_TREES, Keyterms
from nemostream.models.bundle import TOKENIZER, Bundle, load_bundle
from nemostream.models.catalog import resolve


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return load_bundle(resolve(None))


def spelt(bundle: Bundle, term: str) -> str:
    """The term as its pieces say it."""
    ((*ids,),) = Keyterms(bundle).phrases([term])
    return "".join(bundle.tokens[i] for i in ids).replace("\u2581", " ").strip()


def refusal(bundle: Bundle, terms: list[str]) -> str:
    with pytest.raises(KeytermsError) as caught:
        Keyterms(bundle).tree(terms)
    message = str(caught.value)
    assert message.startswith("keyterms: ") and message.endswith(".") and "\n" not in message
    return message


def capitals(bundle: Bundle) -> Bundle:
    """The same, as if it wrote capitals too."""
    return replace(bundle, tokens=(*bundle.tokens, "X"))


def test_terms_are_written_as_the_model_writes(embedded: Bundle) -> None:
    assert spelt(embedded, "  Siobh\tan   O'Neill ") == "siobh an o'neill"
    assert spelt(capitals(embedded), "siobhan") == "siobhan"
    assert Keyterms(capitals(embedded)).phrases(["Siobhan"]) == [], "capitals that no piece has"
    marks = replace(embedded, tokens=(*embedded.tokens, "<EOU>"))  # which is no letter
    assert spelt(marks, "Siobhan") == "siobhan"


def test_the_same_terms_are_one_tree(embedded: Bundle) -> None:
    keyterms = Keyterms(embedded)
    tree = keyterms.tree(["Priya Raman", "nemostream"])
    assert tree is not None
    assert keyterms.tree(["nemostream", "priya raman", "Nemostream"]) is tree
    assert keyterms.tree(["nemostream"]) is not tree
    assert keyterms.tree([]) is None
    for i in range(SHARED_TREES):  # and they are not kept forever
        keyterms.tree(["a" * (i + 1)])
    assert keyterms.tree(["Priya Raman", "nemostream"]) is not tree


def test_what_is_no_list_of_terms_is_refused(embedded: Bundle) -> None:
    assert "a term is blank" in refusal(embedded, ["yes", " \t"])
    assert f"has 101 characters, {MAX_CHARACTERS} is the most" in refusal(embedded, ["a" * 101])
    assert f"1001 terms, {MAX_TERMS} is the most" in refusal(embedded, ["a"] * 1001)
    assert "not a list of words" in refusal(embedded, "siobhan")  # type: ignore[arg-type]
    assert "not a list of words" in refusal(embedded, ["yes", 4])  # type: ignore[list-item]
    assert Keyterms(embedded).tree(["a" * MAX_CHARACTERS] * MAX_TERMS) is not None


def test_a_term_that_the_model_cannot_spell_is_left_out_and_named(
    embedded: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    keyterms = Keyterms(embedded)
    for term in ("route 66", "\u4f60\u597d", "e.g."):
        assert keyterms.phrases(["please", term]) == keyterms.phrases(["please"])
        assert f"cannot spell {term!r}" in caplog.text
        assert keyterms.tree([term]) is None


def test_a_bundle_without_its_tokenizer_says_so(toy_bundle: Bundle) -> None:
    assert toy_bundle.tokenizer is not None and Keyterms(toy_bundle).tree(["hello"]) is not None
    files = {name: file for name, file in toy_bundle.info.files.items() if name != TOKENIZER}
    old = replace(toy_bundle, info=replace(toy_bundle.info, files=files))
    assert "came without its tokenizer; convert the model again" in refusal(old, ["hello"])


def test_a_tokenizer_of_another_model_is_refused(toy_bundle: Bundle, embedded: Bundle, tmp_path: Path) -> None:
    assert toy_bundle.tokenizer is not None
    (tmp_path / TOKENIZER).write_bytes(toy_bundle.tokenizer.read_bytes())
    assert "is of another model" in refusal(replace(embedded, path=tmp_path), ["hello"])
    (tmp_path / TOKENIZER).write_bytes(b"no tokenizer")
    assert "cannot be read" in refusal(replace(embedded, path=tmp_path), ["hello"])

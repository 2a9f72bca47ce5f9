"""WordNet's lines as sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from train.glosses import FILES, of_line, sentences

LINES = {
    "00039021 04 n 01 interaction 0 006 @ 00037396 n 0000 | a mutual or reciprocal action; interacting  ": [
        "interaction, a mutual or reciprocal action"
    ],
    '00039297 04 n 01 contact 2 001 @ 00039021 n 0000 | close interaction; "they kept in daily contact"  ': [
        "contact, close interaction"
    ],
    "02 05 n 02 mail_call 0 mail 0 000 | (of soldiers) a call of names; those who get mail  ": [
        "mail call, a call of names",
        "those who get mail",
    ],
    "03 00 a 01 galore(ip) 0 000 | in great numbers  ": ["galore, in great numbers"],
    "04 06 n 01 b-52 0 000 | a bomber of 1955  ": [],
    "05 06 n 01 gun 0 000 | " + "word " * 14: [],
    '06 06 n 01 thing 0 000 | "said of it"  ': [],
}


@pytest.mark.parametrize(("line", "expected"), LINES.items())
def test_a_line_gives_its_definitions(line: str, expected: list[str]) -> None:
    assert list(of_line(line)) == expected


def test_the_licence_is_no_sentence(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("  1 This software and database is provided\n" + "\n".join(LINES) + "\n")
    assert len(list(sentences(tmp_path))) == len(FILES) * sum(map(len, LINES.values()))

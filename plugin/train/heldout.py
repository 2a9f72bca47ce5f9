"""The sentences that are never trained on, and a check that a corpus would be trained on without them.

python -m train.heldout --held-out corpus_en_heldout sentences_en_heldout.txt --data corpus_en hibari
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path


def normalise(text: str) -> str:
    """Lower case, apostrophes kept, every other mark dropped: what the model writes, and how sentences are compared."""
    return re.sub(r"\s+", " ", re.sub(r"[^a-z' ]", " ", text.lower())).strip()


def read_sentences(path: Path) -> Iterator[str]:
    """Normalised sentences of a folder's manifest.jsonl, a .jsonl with "text", or a text file of one a line."""
    if path.is_dir():
        path = path / "manifest.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["text"] if path.suffix == ".jsonl" else line
        if sentence := normalise(text):
            yield sentence


def held_out_sentences(paths: Iterable[Path]) -> frozenset[str]:
    """Every sentence of `paths`, filled slots included: a template filled with other words is another sentence."""
    return frozenset(sentence for path in paths for sentence in read_sentences(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    held_out = held_out_sentences(args.held_out)
    print(f"{len(held_out)} held-out sentences")
    for folder in args.data:
        sentences = [s for shard in sorted(folder.glob("*[0-9].jsonl")) for s in read_sentences(shard)]
        rejected = [s for s in sentences if s in held_out]
        print(
            f"{folder.name}: {len(sentences)} clips, {len(rejected)} rejected, "
            f"{len(held_out.intersection(rejected))} held-out sentences among them"
        )


if __name__ == "__main__":
    main()

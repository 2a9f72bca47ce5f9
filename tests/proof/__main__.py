"""`make proof`: run the proofs and keep their results.

python -m tests.proof [NAME ...]     # run (all by default), write proofs/NAME.json
python -m tests.proof --stale        # name those whose source has changed since
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    *("nemo_parity", "properties", "many_streams", "kills", "soak", "sharing", "lossy_room"),
    *("sherpa_parity", "full_size", "plans", "schema", "training"),
)


def source_hash(patterns: list[str]) -> str:
    """SHA-256 over the names and contents of the files a proof speaks of."""
    digest = hashlib.sha256()
    for file in sorted({f for p in patterns for f in ROOT.glob(p) if f.is_file()}):
        digest.update(str(file.relative_to(ROOT)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def stale() -> list[str]:
    """The proofs that have no result for the source as it is now."""
    names = []
    for name in NAMES:
        proof = importlib.import_module(f"tests.proof.{name}")
        kept = ROOT / "proofs" / f"{name}.json"
        if not kept.is_file() or json.loads(kept.read_text())["source"] != source_hash(proof.SOURCES):
            names.append(name)
    return names


def run(name: str) -> None:
    """Run one proof; it raises AssertionError where the claim is false."""
    proof = importlib.import_module(f"tests.proof.{name}")
    source = source_hash(proof.SOURCES)
    began = time.monotonic()
    print(f"{name}: {proof.__doc__.splitlines()[0]}", flush=True)
    result: dict[str, Any] = proof.run()
    minutes = round((time.monotonic() - began) / 60, 1)
    kept = ROOT / "proofs" / f"{name}.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps({"source": source, "minutes": minutes, **result}, indent=2) + "\n")
    print(f"{name}: holds, {minutes} minutes, {kept.relative_to(ROOT)}", flush=True)


def main(arguments: list[str]) -> None:
    if arguments == ["--stale"]:
        names = stale()
        print("proofs to run again (make proof): " + ", ".join(names) if names else "all proofs are of this source")
        return
    unknown = [a for a in arguments if a not in NAMES]
    if unknown:
        sys.exit(f"no proof named {unknown[0]}; there are {', '.join(NAMES)}")
    for name in arguments or NAMES:
        run(name)


if __name__ == "__main__":
    main(sys.argv[1:])

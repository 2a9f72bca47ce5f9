"""`python -m nemostream_agent key NAME`: a new API key, and its line for the file that --api-keys-file names."""

from __future__ import annotations

import argparse
import sys

from .auth import digest, new_key


def main() -> None:
    parser = argparse.ArgumentParser(prog="nemostream-agent key", description=__doc__)
    parser.add_argument("name", help="whose it is; it stands in the log")
    name = parser.parse_args().name
    if not name.strip() or any(c in name for c in ":\n#"):
        sys.exit("nemostream-agent key: a name has no colon, no # and no line break")
    key = new_key()
    print(f"key, for the client, shown once: {key}", file=sys.stderr)
    print(f"{name}:{digest(key)}")

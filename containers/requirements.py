"""Print what pyproject.toml asks for, of the package and of its extra [agent], for an image's layer of dependencies.

python requirements.py [onnxruntime=onnxruntime-gpu]      # the one in the place of the other
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, instead: dict[str, str]) -> list[str]:
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    found = [*project["dependencies"], *project["optional-dependencies"]["agent"]]
    return [re.sub(r"^[\w.-]+", lambda name: instead.get(name[0], name[0]), line) for line in found]


if __name__ == "__main__":
    print(*requirements(Path("pyproject.toml"), dict(pair.split("=") for pair in sys.argv[1:])), sep="\n")

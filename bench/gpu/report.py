"""What the sections found, as one table and one JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, str]:
    """What was measured on."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
    }


def write(folder: Path, section: str, found: Any, seconds: float) -> Path:
    """One section's file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{section}.json"
    head = {"section": section, "machine": machine(), "seconds": round(seconds, 1)}
    path.write_text(json.dumps({**head, "found": found}, indent=1))
    return path


def read(folder: Path) -> dict[str, Any]:
    """What is there so far, by section."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same columns, as Markdown."""
    columns = list(rows[0])
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(_shown(row.get(column)) for column in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def text(sections: Mapping[str, Any]) -> str:
    """All of it for people."""
    parts = []
    for name, section in sections.items():
        found = section["found"]
        rows = found["rows"] if isinstance(found, dict) else found
        head = f"## {name} ({section['machine']['gpu']}, torch {section['machine']['torch']})"
        if isinstance(found, dict):
            head += "\n" + ", ".join(f"{key} {_shown(value)}" for key, value in found["peaks"].items())
        parts.append(f"{head}\n\n{table(rows)}")
    return "\n\n".join(parts)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)

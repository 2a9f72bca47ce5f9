"""`make demo`: a gateway with its pages, on this machine; and the clip that it speaks where there is no screen."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent.parent / "assets"
CLIP = ASSETS / "demo.opus"
TRANSCRIPT = ASSETS / "demo.txt"


class DemoError(Exception):
    """The demo did not start, or did not come to its end; one sentence says why."""

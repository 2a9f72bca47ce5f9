"""onnxruntime, which sends nothing to anybody.

from nemostream.ort import onnxruntime   # where a session is made, not at a module's top: importing it takes a while
"""

from __future__ import annotations

import os

# From 1.32 on its official builds report usage to their maker unless this is set before the import; audio of a call is
# nobody else's business, and neither is that there was one.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]

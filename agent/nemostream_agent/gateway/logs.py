"""The log: one JSON object a line on standard error. Transcripts and credentials never stand in it."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure(form: Literal["json", "text"] = "json") -> None:
    """For the whole process."""
    handler = logging.StreamHandler(sys.stderr)
    names = {"asctime": "time", "levelname": "level", "name": "logger"}
    plain = logging.Formatter(FIELDS)
    handler.setFormatter(JsonFormatter(FIELDS, rename_fields=names) if form == "json" else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # It names each connection with its query, which may hold a token.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

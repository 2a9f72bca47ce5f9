"""The log: one JSON object a line on standard error. Credentials never stand in it, and transcripts only where
--log-text asks for them.

configure("json")
with named(request_id): logger.info("stream", extra={"client": "key:anna"})
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"
NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}

_request_id: ContextVar[str] = ContextVar("request_id", default="")


@contextmanager
def named(request_id: str) -> Iterator[None]:
    """Lines that are written within, and in tasks that are begun there, name the request."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


class _Named(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if request_id := _request_id.get():
            record.request_id = request_id
        return True


class _Plain(logging.Formatter):
    """The line, and behind it what else is known, as name=value."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in {*RESERVED_ATTRS, "taskName"}}
        # Quoted: a name may come from a client, and must not begin a line of its own.
        return " ".join([super().formatMessage(record), *(f"{name}={value!r}" for name, value in extra.items())])


def configure(form: Literal["json", "text"] = "json") -> None:
    """For the whole process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(FIELDS, rename_fields=NAMES) if form == "json" else _Plain(FIELDS))
    handler.addFilter(_Named())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # It names each connection with its query, which may hold a token.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Every connectivity check of every pair of addresses.
    logging.getLogger("aioice").setLevel(logging.WARNING)

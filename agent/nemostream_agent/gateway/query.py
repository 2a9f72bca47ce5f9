"""What a WebSocket's query parameters ask for: /ws?language=en&chunk_ms=160&encoding=mulaw&sample_rate=8000"""

from __future__ import annotations

from typing import cast

from starlette.datastructures import QueryParams

from .errors import bad_request
from .pcm import ENCODINGS
from .settings import Decoder, StreamOptions, endpointing_of

ALIASES = {"linear16": "pcm16", "pcm_s16le": "pcm16", "s16le": "pcm16", "pcm": "pcm16", "linear32": "pcm32"}
ALIASES |= {"ulaw": "mulaw", "pcmu": "mulaw", "pcma": "alaw", "f32le": "float32"}
MAX_TEXT = 100


def stream_options(query: QueryParams) -> StreamOptions:
    """Parameters that are not known do not count: clients send what their old server understood.

    Raises:
        Refusal: one that is known has a value that means nothing.
    """
    return StreamOptions(
        model=query.get("model") or None,
        chunk_ms=whole(query, "chunk_ms", None),
        language=query.get("language") or None,
        decoder=cast(Decoder | None, choice(query, "decoder", ("rnnt", "ctc"))),
        keyterms=terms(query, "keyterms"),
        endpointing=None if query.get("endpointing_ms") is None else endpointing_of(whole(query, "endpointing_ms", 0)),
        encoding=encoding(query, "pcm16"),
        sample_rate=whole(query, "sample_rate", 16_000) or 16_000,
        channels=whole(query, "channels", 1) or 1,
    )


def whole(query: QueryParams, name: str, otherwise: int | None) -> int | None:
    """A number of at least 0."""
    given = query.get(name)
    if given is None or given == "":
        return otherwise
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise bad_request(f"{name} is a whole number, not {given[:MAX_TEXT]!r}")
    return int(given)


def choice(query: QueryParams, name: str, among: tuple[str, ...]) -> str | None:
    given = query.get(name) or None
    if given is not None and given not in among:
        raise bad_request(f"{name} is one of {', '.join(among)}, not {given[:MAX_TEXT]!r}")
    return given


def encoding(query: QueryParams, otherwise: str | None) -> str | None:
    """One of pcm.ENCODINGS, by any of its usual names."""
    given = (query.get("encoding") or "").lower()
    if not given:
        return otherwise
    if (found := ALIASES.get(given, given)) not in ENCODINGS:
        raise bad_request(f"encoding is one of {', '.join(ENCODINGS)}, not {given[:MAX_TEXT]!r}")
    return found


def terms(query: QueryParams, *names: str) -> tuple[str, ...]:
    """Given several times, or parted by commas."""
    given = [part.strip() for name in names for value in query.getlist(name) for part in value.split(",")]
    return tuple(dict.fromkeys(term for term in given if term))

"""What the query parameters of `/v1/listen` ask for, and what they mean here.

options = listen_options(query)          # model=nova-3&encoding=linear16&sample_rate=16000&endpointing=300 ...
"""

from __future__ import annotations

import re

from starlette.datastructures import QueryParams

from nemostream.protocol import NO_ENDPOINT, Endpointing

from .errors import bad_request
from .query import MAX_TEXT, choice, encoding, whole
from .settings import StreamOptions, endpointing_of

THEIRS = re.compile(r"(2-)?(nova|enhanced|base|flux|whisper|general|meeting|phonecall|voicemail|finance|video)\b.*")
"""Names of that service's models: here they mean the gateway's default."""
CONTAINED = ("flac", "opus", "ogg-opus")
"""Encodings that say themselves what they are."""
LEAST_MS = 400
"""The shortest pause that ends a segment. Clients ask for 10 or 25 ms, counted by a detector of voices. Here it is the
time between two pieces of text, and the pieces of a word that is spoken slowly lie further apart than that."""


def listen_options(query: QueryParams) -> StreamOptions:
    """
    Raises:
        Refusal: a parameter has a value that means nothing.
    """
    model = query.get("model") or None
    language = query.get("language") or None
    return StreamOptions(
        model=None if model is None or THEIRS.fullmatch(model.lower()) else model,
        language=None if language == "multi" else language,  # a model that speaks several finds out which
        keyterms=_terms(query),
        endpointing=_endpointing(query),
        encoding=None if (query.get("encoding") or "").lower() in CONTAINED else encoding(query, None),
        sample_rate=whole(query, "sample_rate", 16_000) or 16_000,
        channels=whole(query, "channels", 1) or 1,
    )


def flag(query: QueryParams, name: str) -> bool:
    return choice(query, name, ("true", "false")) == "true"


def pauses_count(query: QueryParams) -> bool:
    """Whether a pause ends speech: endpointing is not off."""
    return (query.get("endpointing") or "").lower() not in ("false", "0")


def utterance_end_ms(query: QueryParams) -> int | None:
    """None: no UtteranceEnd is wanted."""
    return whole(query, "utterance_end_ms", None) or None


def _endpointing(query: QueryParams) -> Endpointing | None:
    if not pauses_count(query):
        # An UtteranceEnd comes behind a final, so there must be one.
        gap = utterance_end_ms(query)
        return NO_ENDPOINT if gap is None else endpointing_of(max(gap, LEAST_MS))
    if (query.get("endpointing") or "true").lower() == "true":
        return None
    return endpointing_of(max(whole(query, "endpointing", 0) or 0, LEAST_MS))


def _terms(query: QueryParams) -> tuple[str, ...]:
    """keyterm=a phrase, and keywords=word:boost, where a boost below 0 asks for the opposite."""
    found = [term.strip() for term in query.getlist("keyterm")]
    for given in query.getlist("keywords"):
        word, colon, boost = given.rpartition(":")
        try:
            wanted = float(boost) > 0 if colon else True
        except ValueError:
            raise bad_request(f"keywords are word:boost, where boost is a number; not {given[:MAX_TEXT]!r}") from None
        if wanted:
            found.append((word if colon else given).strip())
    return tuple(dict.fromkeys(term for term in found if term))

"""What schemathesis makes of the OpenAPI document: requests that fit it and others, and whether the answers do."""

from __future__ import annotations

import base64
from collections import Counter

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.clips import clip
from tests.gateway.recordings import wav

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SOUND = wav(clip("music"))
SDP = ("application/sdp", "application/trickle-ice-sdpfrag")
"""Offers that are none: tests/whip has real ones."""
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def explore(url: str, cases: int) -> Counter[str]:
    """Send about so many requests to the gateway at `url`; how many of each endpoint and status there were.

    Raises:
        AssertionError or a failure of schemathesis, with the request: an answer was a 500, or none that the document
            announces.
    """
    # Else no file would ever be one, and nothing behind that would be reached.
    files = st.just(SOUND) | st.integers(0, len(SOUND)).map(lambda end: SOUND[:end]) | st.binary(max_size=1000)
    schemathesis.openapi.format("binary", files)
    schemathesis.openapi.format("byte", files.map(lambda file: base64.b64encode(file).decode()))
    schemathesis.serializer.alias("audio/*", "application/octet-stream")
    for kind in SDP:
        schemathesis.serializer.alias(kind, "text/plain")
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    # A stream of events has no end. (tests/whip reads it.)
    operations = [one for one in operations if not one.path.endswith("/captions")]
    uploads = [one for one in operations if one.method.upper() == "POST"]
    # An endpoint without parameters has one request.
    share = -(-cases // (2 * len(uploads)))
    answers: Counter[str] = Counter()
    for operation in operations:
        for mode in MODES:
            if operation not in uploads and mode is GenerationMode.NEGATIVE:
                continue
            _explore(operation, mode, share if operation in uploads else 5, answers)
    return answers


def _explore(operation: schemathesis.APIOperation, mode: GenerationMode, cases: int, answers: Counter[str]) -> None:
    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        response = case.call(timeout=60)
        answers[f"{operation.method.upper()} {operation.path} {response.status_code}"] += 1
        case.validate_response(response, checks=CHECKS)

    send()

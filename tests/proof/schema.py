"""schemathesis against the gateway's OpenAPI document: 5,000 requests, no 500, no answer that is not announced."""

from __future__ import annotations

from tests.gateway.exploration import explore
from tests.gateway.process import GatewayProcess

SOURCES = ["agent/nemostream_agent/gateway/*.py", "plugin/nemostream/audio.py", "tests/gateway/exploration.py"]
CASES = 5_000


def run() -> dict[str, object]:
    with GatewayProcess() as gateway:
        answers = explore(gateway.http, CASES)
        assert "Traceback" not in gateway.log(), "a request failed in a way that nobody foresaw"
        assert gateway.health()["active_streams"] == 0, "a stream was left behind"
    assert sum(answers.values()) >= CASES
    return {"cases": sum(answers.values()), "answers": dict(sorted(answers.items()))}

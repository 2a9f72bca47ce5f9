"""The OpenAPI document is true, and nothing that is made from it brings the gateway to a 500."""

from __future__ import annotations

from tests.gateway.exploration import explore
from tests.gateway.process import GatewayProcess

CASES = 200


def test_answers_are_what_the_document_announces(gateway: GatewayProcess) -> None:
    answers = explore(gateway.http, CASES)
    assert sum(answers.values()) >= CASES
    assert "Traceback" not in gateway.log()
    assert gateway.health()["active_streams"] == 0

"""The server keeps what its own OpenAPI document promises, whatever is sent to it."""

from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from leadline.server.openapi.operations import OPERATIONS

# A longer search: pytest tests/api/test_schemathesis.py --api-examples 500
CHECKS = {
    "not_a_server_error": {"enabled": True},
    "status_code_conformance": {"enabled": True},
    "content_type_conformance": {"enabled": True},
    "response_headers_conformance": {"enabled": True},
    "response_schema_conformance": {"enabled": True},
    "negative_data_rejection": {"enabled": True},
    "unsupported_method": {"enabled": True},
    "allow_header_conformance": {"enabled": True},
    # What belongs together or is bounded by the model cannot be told in a schema.
    "positive_data_acceptance": {"enabled": False},
}


def configuration(num_examples: int) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "checks": CHECKS,
            "generation": {
                "mode": "all",
                "max-examples": num_examples,
                "deterministic": True,
                "no-shrink": True,
                "database": "none",
            },
            "phases": {"stateful": {"enabled": False}},
            "continue-on-failure": True,
            "suppress-health-check": ["all"],
        }
    )


@pytest.mark.parametrize("key", sorted(OPERATIONS))
def test_an_operation(service: Any, pytestconfig: pytest.Config, key: str) -> None:
    """Requests that the document allows and such that it does not, by examples and at random."""
    method, _, path = key.partition(" ")
    document = service.http.get("/openapi.json").json()
    config = configuration(pytestconfig.getoption("--api-examples"))
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.config.update(base_url=service.url)
    failures: set[str] = set()
    num_requests = 0
    for event in from_schema(schema.include(path=path, method=method)).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            failures.add(str(event))
        if not isinstance(event, events.ScenarioFinished):
            continue
        num_requests += len(event.recorder.interactions)
        for checks in event.recorder.checks.values():
            for check in checks:
                if check.status is Status.FAILURE:
                    info = check.failure_info
                    failures.add(f"{check.name}: {info.failure.message}\n{info.code_sample}")
    assert not failures, "\n\n".join(sorted(failures)[:20])
    assert num_requests

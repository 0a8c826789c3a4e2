"""The OpenAPI description is valid, and a generated client passes against the running server."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from mmaction_lite.serve.app import ROUTERS

schemathesis = pytest.importorskip("schemathesis")
conformance = pytest.importorskip("schemathesis.specs.openapi.checks")
validator = pytest.importorskip("openapi_spec_validator")

EXAMPLES = int(os.environ.get("MMACTION_LITE_EXAMPLES", "2"))
ENDLESS = ("/v1/run/events",)  # a stream of events that does not end
CHECKS = [
    schemathesis.checks.not_a_server_error,
    *(
        getattr(conformance, name)
        for name in (
            "status_code_conformance",
            "content_type_conformance",
            "response_headers_conformance",
            "response_schema_conformance",
        )
    ),
]


def test_the_description_is_valid(client):
    content = client.get("/openapi.json").json()
    validator.validate(content)
    assert {route.path for router in ROUTERS for route in router.routes} <= content["paths"].keys()  # pyright: ignore
    for path, methods in content["paths"].items():
        for name, operation in methods.items():
            assert operation["summary"], (path, name)
            assert "application/problem+json" in str(operation["responses"]["default"]), (path, name)


@pytest.mark.slow
def test_a_generated_client_passes(browser):
    schema = schemathesis.openapi.from_url(f"{browser.base_url}/openapi.json").exclude(path=list(ENDLESS))
    checked = []
    for found in schema.get_all_operations():
        operation = found.ok()
        check_operation(operation.as_strategy())
        checked.append(operation.label)
    assert len(checked) >= 19


def check_operation(cases: Any) -> None:
    """Send a few generated requests, and compare the answers with the description."""

    @given(case=cases)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
        database=None,
        derandomize=True,
    )
    def check(case: Any) -> None:
        case.call_and_validate(timeout=60, checks=CHECKS)

    check()

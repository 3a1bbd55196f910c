"""The server under schemathesis: every operation of its description, with made-up requests, and no surprise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from logact.server.app import LogServer
from logact.server.limits import Limits
from logact.server.openapi import description
from tests.server.kit import ALL_ROLES, ServerProcess
from tests.server.test_attacks import SMALL

DESCRIPTION = description(Limits())
OPERATIONS: list[Any] = [found.ok() for found in schemathesis.openapi.from_dict(DESCRIPTION).get_all_operations()]  # type: ignore[union-attr]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 6
READING = ("{log}", "tail", "read", "entries", "follow", "wait", "checkpoint", "healthz", "metrics")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose waits are short."""
    process = ServerProcess(f"sqlite:///{tmp_path_factory.mktemp('fuzzed')}/logs.db", program=SMALL)
    yield process
    assert process.stop() == (0, "")


def test_the_server_shows_this_description(server: ServerProcess) -> None:
    """What is tested here is what the server says of itself."""
    with httpx2.Client(trust_env=False, verify=False) as client:
        assert client.get(f"{server.address}/openapi.json").json() == json.loads(json.dumps(DESCRIPTION))


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        pytest.param(operation, mode, id=f"{operation.label} {mode.value}")
        for operation in OPERATIONS
        for mode in GenerationMode
        # nothing can be wrong about a request that takes nothing
        if mode is GenerationMode.POSITIVE or "{" in operation.path
    ],
)
def test_every_operation(server: ServerProcess, operation: Any, mode: GenerationMode) -> None:
    """Whatever fits the description, and what does not, is answered as it says, and never by a 500."""
    headers = {"Authorization": f"Bearer {server.token('fuzz', ALL_ROLES)}"}
    statuses = set()
    server.make("fuzzed")

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and case.path_parameters and operation.label.split("/")[-1] in READING:
            case.path_parameters["log"] = "fuzzed"  # one that is there
        if operation.label.endswith("/follow"):
            case.query = {**(case.query or {}), "live": "false"}
        answer = case.call(base_url=server.address, headers=headers)
        case.validate_response(answer, checks=CHECKS)
        statuses.add(answer.status_code)

    check()
    assert not any(status >= 500 for status in statuses)
    if mode is GenerationMode.POSITIVE and operation.label.split("/")[-1] in READING:
        assert 200 in statuses


def test_the_description_names_every_route() -> None:
    """No route is left out of the description, and none is made up."""
    routes = {(route.path, method) for route in LogServer("memory:").app.routes for method in route.methods or ()}  # type: ignore[attr-defined]
    described = {
        (path, method.upper())
        for path, methods in DESCRIPTION["paths"].items()
        for method in methods
        if method != "parameters"
    }
    assert {(path, method) for path, method in routes if method != "HEAD"} == described

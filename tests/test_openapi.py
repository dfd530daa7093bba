"""Everything that OpenAPI describes, tried with valid and invalid data by everybody who may ask.

schemathesis reads the description and makes the requests: the values at the borders of each field, and then as many
others as there is time for. `make openapi` takes thousands instead of a few.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from populated_gateway import ADMIN, EMBEDDER, GPU, ORGANISATION, TALKERS, Population, populated_gateway
from schemathesis import APIOperation, Case, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig
from schemathesis.generation.drivers import CoverageGenerator
from schemathesis.generation.feedback import NO_FEEDBACK
from schemathesis.generation.overrides import Override
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import create_app
from gateway.settings import Settings

IS_DEEP = "SIMSA_TEST_OPENAPI_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("SIMSA_TEST_OPENAPI_EXAMPLES", "2"))
"""Requests an operation, beyond those at the borders of its fields, each sent by three callers."""
OPEN_PATHS = ("/health", "/ready", "/metrics")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
BATCHES = "/api/comparisons/batches"
MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"enum": ["user", "assistant"]}, "content": {"type": "string", "minLength": 1}},
}
ONE_OF_TWO = {"messages", "prompt"}
NAMES: dict[str, list[str]] = {"model": [*TALKERS, EMBEDDER], "gpu": [GPU], "organisation": [ORGANISATION]}


def naming_what_exists(described: dict[str, Any]) -> dict[str, Any]:
    """The same, where models, GPUs and organisations are those that exist: all others are tried as invalid data."""
    named = copy.deepcopy(described)
    for operations in named["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in NAMES:
                    parameter["schema"] = {"type": "string", "enum": NAMES[parameter["name"]]}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                shape = content["schema"]
                _name_fields(shape.get("properties", {}))
                if set(shape.get("properties", ())) >= ONE_OF_TWO:
                    del shape["properties"]["prompt"]
                    shape["required"].append("messages")
    return named


def _name_fields(fields: dict[str, Any]) -> None:
    for name, values in NAMES.items():
        if name in fields:
            fields[name] = {"type": "string", "enum": values}
    if "models" in fields:
        fields["models"] = {"type": "array", "enum": [list(TALKERS)]}
    if "messages" in fields:
        fields["messages"] = {"type": "array", "items": MESSAGE, "minItems": 1}


DESCRIPTION = create_app(Settings()).openapi()
OPERATIONS = [f"{method.upper()} {path}" for path, methods in DESCRIPTION["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def operations() -> dict[str, APIOperation[Any, Any, Any, Any]]:
    described = schemathesis.openapi.from_dict(naming_what_exists(DESCRIPTION))
    found = (result.ok() for result in described.get_all_operations())  # type: ignore[union-attr]
    return {operation.label: operation for operation in found}


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Population]:
    with populated_gateway(tmp_path_factory.mktemp("openapi")) as population:
        yield population


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize("label", OPERATIONS)
def test_operation_answers_as_described_whatever_is_sent_and_whoever_sends_it(
    label: str, operations: dict[str, Any], population: Population, session: requests.Session
) -> None:
    operation = operations[label]
    for case in at_the_borders(operation):
        send(case, population, session)

    @settings(max_examples=EXAMPLES, derandomize=not IS_DEEP, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode]))
    def try_others(case: Case[Any]) -> None:
        send(case, population, session)

    try_others()


def at_the_borders(operation: APIOperation[Any, Any, Any, Any]) -> Iterator[Case[Any]]:
    """Valid and invalid requests at the borders of every field, other methods included: the same ones each time."""
    return iter(
        CoverageGenerator(
            operation=operation,
            generation_modes=list(GenerationMode),
            generation_config=GenerationConfig(),
            auth_storage=None,
            override=Override(),
            feedback=NO_FEEDBACK,
        )
    )


def send(case: Case[Any], population: Population, session: requests.Session) -> None:
    """Send a request as each caller, also for things that exist; fails unless the answers are as described."""
    for each in filter(None, (case, asking_for_what_exists(case, population))):
        for key in (None, population.integrator, ADMIN):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            response = each.call(base_url=population.url, session=session, headers=headers)
            each.validate_response(response, checks=CHECKS)
            refuse_strangers_and_use_the_envelope(each, response, key)
            if case.operation.label == f"POST {BATCHES}" and response.status_code == 201:
                made = f"{population.url}{BATCHES}/{response.json()['id']}"
                assert session.delete(made, headers=headers).status_code == 200  # or it would go on beside the others


def asking_for_what_exists(case: Case[Any], population: Population) -> Case[Any] | None:
    """The same request for things that exist; None where it names nothing that could."""
    known = population.known
    path = {name: known[name] for name in case.path_parameters}
    query = {name: known["before"] if name == "before" else value for name, value in case.query.items()}
    if (path, query) == (case.path_parameters, case.query):
        return None
    other = case.derive(query=query)
    other.path_parameters = path
    return other


def refuse_strangers_and_use_the_envelope(case: Case[Any], response: Response, key: str | None) -> None:
    if key is None and case.operation.path not in OPEN_PATHS:
        is_refused = response.status_code in (401, 405)
        assert is_refused or response.json()["error"]["code"] == "route_not_found", response.text
    if response.status_code < 400 or case.method.upper() == "HEAD" or case.operation.path == "/ready":
        return
    body = response.json()
    if case.operation.path.startswith("/v1/messages"):
        assert (set(body), body["type"], set(body["error"])) == ({"type", "error"}, "error", {"type", "message"})
    else:
        assert set(body) == {"error"}
        assert set(body["error"]) >= {"message", "type", "param", "code"}
    assert body["error"]["message"]

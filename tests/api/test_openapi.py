"""The document says what the server does: every route, every field, every status."""

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from starlette.applications import Starlette

from leadline.server.openapi.document import describe, keys_of
from leadline.server.openapi.operations import OPERATIONS


@pytest.fixture
def document(service: Any) -> dict[str, Any]:
    response = service.http.get("/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def app_of(serve: Callable[..., Any]) -> Starlette:
    from leadline.server.app import create_app

    return create_app(serve().state)


def test_every_route_is_described_and_nothing_else(serve: Callable[..., Any]) -> None:
    """A new route needs its line in `server/openapi/operations.py`."""
    keys = [key for route in app_of(serve).routes for key in keys_of(route)]
    assert sorted(keys) == sorted(OPERATIONS)


def test_a_route_that_is_not_there_is_not_described(serve: Callable[..., Any]) -> None:
    routes = [route for route in app_of(serve).routes if getattr(route, "path", "") == "/livez"]
    assert list(describe(routes, ["m"])["paths"]) == ["/livez"]


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    found = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(ref := value.get("$ref"), str):
                found.append(ref)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    assert found
    for ref in found:
        place: Any = document
        for part in ref.removeprefix("#/").split("/"):
            place = place[part]


def test_examples_are_answered(service: Any, document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody")
            if body is None:
                continue
            example = body["content"]["application/json"]["example"]
            response = service.http.request(method, path, json=example)
            assert response.status_code == 200, (path, response.text)
            content = operation["responses"]["200"]["content"]
            schema = {**content["application/json"]["schema"], "components": document["components"]}
            jsonschema.validate(response.json(), schema)


def test_bounds_fields_and_models_are_told(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    chat = schemas["ChatRequest"]
    assert chat["properties"]["temperature"]["anyOf"][0] == {
        "type": "number",
        "minimum": 0,
        "maximum": 2,
    }
    assert chat["properties"]["model"]["enum"] == ["tiny", "org/alias"]
    assert chat["properties"]["store"]["enum"] == [None, False, [], {}]
    assert "seed" in schemas["ChatCompletion"]["properties"]
    described = schemas["ChatCompletion"]["properties"]["seed"]["description"]
    assert described.startswith("the request's, or the one that was drawn")


def test_statuses_and_headers(document: dict[str, Any]) -> None:
    chat = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert sorted(chat) == sorted(
        "200 400 401 404 408 413 415 429 431 500 503 504".split()  # noqa: SIM905
    )
    assert set(chat["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "Retry-After" in chat["429"]["headers"]
    assert "x-ignored-fields" in chat["200"]["headers"]
    livez = document["paths"]["/livez"]["get"]
    assert livez["security"] == []
    assert "401" not in livez["responses"]

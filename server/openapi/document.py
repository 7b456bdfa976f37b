"""The OpenAPI 3.1 document of an application, from its routes and their types."""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.routing import BaseRoute, Route

from leadline.server.access import ADMIN_PATHS, METRICS_PATH, OPEN_PATHS
from leadline.server.openapi.operation import EVENT_STREAM, JSON, Operation
from leadline.server.openapi.operations import OPERATIONS
from leadline.server.openapi.schemas import Schema, Schemas
from leadline.server.version import version

_STATUSES = {
    200: "The answer.",
    400: "The request is at fault; `param` names the field, the message what is allowed.",
    401: "The API key is missing or wrong; only where the server has been given keys.",
    404: "There is no such model or thing.",
    408: "The request has not come whole in time.",
    409: "It is not possible now; the message says what has to come first.",
    413: "The body is too large.",
    415: "The body is not announced as plain JSON.",
    429: "The queue is full; `Retry-After` says when to try again.",
    431: "The request's head is too large.",
    500: "The server is at fault; its log tells more of the request's id.",
    503: "The model is being loaded, the server is shutting down, or the engine has ended.",
    504: "The request's own deadline has passed.",
}
_EVERYWHERE = (401, 408, 431, 500, 503)
_WITH_BODY = (400, 404, 413, 415)
_STREAM_NOTE = (
    "With `stream`: server-sent events, each `data: ` and a JSON object. A failure on the way is "
    "an event that holds the error; the connection is then cut."
)
_HEADERS = {
    "x-request-id": "The request's own `X-Request-Id`, or a new one; the log speaks of it.",
    "x-ignored-fields": "Fields of the body that nobody knows, and that changed nothing.",
    "Retry-After": "Seconds after which to try again.",
    "x-should-retry": "`false`: clients are not to send the request again by themselves.",
    "WWW-Authenticate": "How to send a key.",
}
_STATUS_HEADERS = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
    504: ("x-should-retry",),
}
_KEYS: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]


def describe(routes: Iterable[BaseRoute], model_names: Iterable[str]) -> dict[str, Any]:
    """The document.

    Args:
        routes: of the application; those that are no operation of it are left out.
        model_names: under which the model is served.
    """
    shown = list(_operations_of(routes))
    operations = [operation for _, _, operation in shown]
    names = list(model_names)
    answers: dict[int, Any] = {}
    for operation in operations:
        for answer in (operation.answer, operation.error, operation.unavailable):
            if answer is not None:
                answers[id(answer)] = answer
    requests = {operation.request: None for operation in operations if operation.request}
    schemas = Schemas(requests=requests, answers=answers.values(), model_names=names)
    paths: dict[str, Any] = {}
    for key, route, operation in shown:
        method, _, path = key.partition(" ")
        paths.setdefault(path, {})[method.lower()] = _describe(
            key, route, operation, schemas, names[0]
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Leadline",
            "version": version(),
            "description": "An inference server for the DeepSeek-V3 model family.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in _HEADERS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def keys_of(route: BaseRoute) -> list[str]:
    """The keys in `OPERATIONS` of a route: a method and the path, without converters."""
    if not isinstance(route, Route) or not route.include_in_schema:
        return []
    path = re.sub(r":\w+}", "}", route.path)
    return [f"{method} {path}" for method in sorted(route.methods or ()) if method != "HEAD"]


def _operations_of(routes: Iterable[BaseRoute]) -> Iterable[tuple[str, Route, Operation]]:
    for route in routes:
        for key in keys_of(route):
            if key in OPERATIONS and isinstance(route, Route):
                yield key, route, OPERATIONS[key]


def _describe(
    key: str, route: Route, operation: Operation, schemas: Schemas, model_name: str
) -> dict[str, Any]:
    path = key.partition(" ")[2]
    doc = (inspect.getdoc(route.endpoint) or "").split("\n\n")[0]
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", key).strip("_").lower(),
        "summary": " ".join(doc.split()).rstrip("."),
        "tags": [operation.tag],
        "security": [] if path in OPEN_PATHS else [{}, *_KEYS],
    }
    if path in ADMIN_PATHS:
        found["description"] = "Needs the key for administration, where the server has one."
    elif path == METRICS_PATH:
        found["description"] = "Needs the key for metrics, where the server has one."
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.param_convertors
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in operation.query.items()
    ]
    if parameters:
        found["parameters"] = parameters
    if operation.request is not None:
        body: dict[str, Any] = {"schema": schemas.of(operation.request)}
        if operation.example:
            body["example"] = {"model": model_name, **operation.example}
        found["requestBody"] = {"required": True, "content": {JSON: body}}
    statuses = {*_EVERYWHERE, *operation.errors, *(_WITH_BODY if operation.request else ())}
    found["responses"] = {
        str(status): _response(status, operation, schemas)
        for status in sorted({200} | statuses - _never(path))
    }
    return found


def _never(path: str) -> set[int]:
    return {401} if path in OPEN_PATHS else set()


def _response(status: int, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    names = ["x-request-id", *_STATUS_HEADERS.get(status, ())]
    content: Mapping[str, Schema]
    description = _STATUSES[status]
    if status != 200:
        content = {JSON: {"schema": _error_schema(status, operation, schemas)}}
    elif operation.answer is None:
        content = {operation.media_type: {"schema": {"type": "string"}}}
    else:
        content = {operation.media_type: {"schema": schemas.of(operation.answer)}}
        if operation.request is not None:
            names.append("x-ignored-fields")
        if operation.streams:
            content = {**content, EVENT_STREAM: {"schema": {}}}
            description = f"{description} {_STREAM_NOTE}"
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {"description": description, "headers": headers, "content": content}


def _error_schema(status: int, operation: Operation, schemas: Schemas) -> Schema:
    usual = schemas.of(operation.error)
    if status == 503 and operation.unavailable is not None:
        return {"anyOf": [schemas.of(operation.unavailable), usual]}
    return usual

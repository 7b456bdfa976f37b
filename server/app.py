"""The HTTP application: routes, and errors in one envelope."""

from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from leadline.engine.errors import EngineError
from leadline.server.access import Access
from leadline.server.chat import chat_completions
from leadline.server.completions import completions
from leadline.server.dashboard import dashboard
from leadline.server.edge import Edge
from leadline.server.errors import ApiError, from_engine_error
from leadline.server.generate import generate
from leadline.server.health import EngineHealth, StallLimits, probe_routes
from leadline.server.messages.envelope import AnthropicErrors, is_for_anthropic
from leadline.server.messages.messages import count_tokens, create_message
from leadline.server.messages.models import model_info, model_page
from leadline.server.metrics import CONTENT_TYPE
from leadline.server.operator import operator_routes
from leadline.server.page_files import page_routes
from leadline.server.requests import model_not_found
from leadline.server.response_types import DroppedPages, Model, ModelList, Version
from leadline.server.responses.create import count_input_tokens, create_response
from leadline.server.responses.stored import (
    cancel_response,
    delete_response,
    get_response,
    list_input_items,
)
from leadline.server.server_info import show_server_info
from leadline.server.state import ServerState
from leadline.server.tokenize import detokenize, show_tokenizer_info, tokenize
from leadline.server.version import version

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def create_app(
    state: ServerState,
    *,
    access: Access | None = None,
    stall_limits: StallLimits | None = None,
) -> Starlette:
    """The ASGI application of one served model.

    Args:
        state: what the handlers need.
        access: who is let in; None for everybody.
        stall_limits: from when on the engine counts as stuck; None for the usual ones.
    """
    access = access or Access()
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/responses", create_response, methods=["POST"]),
            Route("/v1/responses/input_tokens", count_input_tokens, methods=["POST"]),
            Route("/v1/responses/{response_id}", get_response, methods=["GET"]),
            Route("/v1/responses/{response_id}", delete_response, methods=["DELETE"]),
            Route("/v1/responses/{response_id}/cancel", cancel_response, methods=["POST"]),
            Route("/v1/responses/{response_id}/input_items", list_input_items, methods=["GET"]),
            Route("/inference/v1/generate", generate, methods=["POST"]),
            Route("/v1/messages", create_message, methods=["POST"]),
            Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", get_model),
            Route("/tokenize", tokenize, methods=["POST"]),
            Route("/detokenize", detokenize, methods=["POST"]),
            Route("/tokenizer_info", show_tokenizer_info),
            Route("/reset_prefix_cache", reset_prefix_cache, methods=["POST"]),
            *operator_routes(),
            *probe_routes(),
            *page_routes(),
            Route("/dashboard.json", dashboard),
            Route("/metrics", metrics),
            Route("/version", show_version),
            Route("/server_info", show_server_info),
            Route("/openapi.json", openapi),
        ],
        middleware=[Middleware(AnthropicErrors), Middleware(Edge, state=state, access=access)],
        exception_handlers={ApiError: _on_api_error, HTTPException: _on_http_exception},
    )
    app.state.server = state
    app.state.health = EngineHealth(state, stall_limits or StallLimits())
    return app


async def list_models(request: Request) -> Response:
    """The names under which the model is served."""
    state: ServerState = request.app.state.server
    if is_for_anthropic(request.url.path, request.headers):
        return _json(model_page(state, request.query_params))
    models = ModelList(data=[_model(state, name) for name in state.model_names])
    return _json(models)


async def get_model(request: Request) -> Response:
    """One of the names."""
    state: ServerState = request.app.state.server
    name = request.path_params["name"]
    if name not in state.model_names:
        raise model_not_found(state, name)
    if is_for_anthropic(request.url.path, request.headers):
        return _json(model_info(state, name))
    return _json(_model(state, name))


async def reset_prefix_cache(request: Request) -> Response:
    """Let the engine forget the pages of earlier requests."""
    state: ServerState = request.app.state.server
    try:
        num_pages = await state.engine.reset_prefix_cache()
    except EngineError as error:
        raise from_engine_error(error) from error
    return _json(DroppedPages(num_pages=num_pages))


async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    state: ServerState = request.app.state.server
    return Response(state.metrics.render(), headers={"content-type": CONTENT_TYPE})


async def show_version(request: Request) -> Response:
    """Leadline's version."""
    return _json(Version(version=version()))


async def openapi(request: Request) -> Response:
    """This document."""
    from leadline.server.openapi.document import describe  # takes longer than the rest of the start

    state: ServerState = request.app.state.server
    return _json(describe(request.app.routes, state.model_names))


def _model(state: ServerState, name: str) -> Model:
    return Model(id=name, created=state.created_s, max_model_len=state.max_model_len)


def _json(content: msgspec.Struct | dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method[:20], request.url.path[:200]
    message = f"{method} {path}: {error.detail}"
    code = _HTTP_CODES.get(error.status_code)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_of(request))
    return ApiError(error.status_code, message, code=code, headers=headers).response()


def _methods_of(request: Request) -> list[str]:
    """All that a path can be asked by: several routes may have it, one a method."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    paths = [route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    found = (route.methods or () for route in routes if route.path in paths[:1])
    return sorted({method for methods in found for method in methods})

"""What answers on the socket: probes, the page and refusals while the engine loads, then all."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from leadline.server.edge import Edge
from leadline.server.health import LoadingHealth, probe_routes
from leadline.server.messages.envelope import AnthropicErrors
from leadline.server.page_files import page_routes

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Doorway:
    """An ASGI application that becomes another one when that is ready."""

    def __init__(self) -> None:
        self._app: ASGIApp = _loading_app()

    def open(self, app: ASGIApp) -> None:
        """Let `app` answer from now on."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, send)


def _loading_app() -> Starlette:
    app = Starlette(
        routes=[*probe_routes(), *page_routes(), Route("/{path:path}", _refuse, methods=_METHODS)],
        middleware=[Middleware(AnthropicErrors), Middleware(Edge)],
    )
    app.state.health = LoadingHealth()
    return app


async def _refuse(request: Request) -> Response:
    return LoadingHealth().condition().error().response()

"""The outermost layer of every request: its id, whether it is let in, and what is left to go wrong.

This is the process edge of the HTTP side: the one place that catches everything.
"""

import logging
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leadline.server.access import Access
from leadline.server.errors import ApiError, ClientDisconnectedError, UnavailableError
from leadline.server.request_id import HEADER, REQUEST_ID, request_id_of
from leadline.server.route_names import RouteNames
from leadline.server.sse import error_frame
from leadline.server.state import ServerState

logger = logging.getLogger(__name__)


def _with_id(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """The request's headers as handlers see them: with the id that the answer will carry."""
    name = HEADER.encode()
    return [*(header for header in headers if header[0] != name), (name, request_id.encode())]


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, state: ServerState | None = None, access: Access | None = None
    ) -> None:
        """`state`: None while it is not known; `access`: None lets everybody in."""
        self._app = app
        self._state = state
        self._access = access or Access()
        self._names: RouteNames | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(Headers(scope=scope))
        scope = {**scope, "headers": _with_id(scope["headers"], request_id)}
        content_type: str | None = None
        status: int | None = None
        token = REQUEST_ID.set(request_id)

        async def send_with_id(message: Message) -> None:
            nonlocal content_type, status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._count(scope, status)
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                content_type = headers.get("content-type", "")
            await send(message)

        try:
            await self._answer(scope, receive, send_with_id)
        except ClientDisconnectedError:
            logger.debug("request %s: the client has left", request_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            error = ApiError(
                500, f"internal error; the log tells more of {request_id}", code="internal_error"
            )
            if content_type is None:
                await error.response()(scope, receive, send_with_id)
            elif content_type.startswith("text/event-stream"):
                frame = error_frame(error)
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        finally:
            REQUEST_ID.reset(token)
            if status is None:
                self._count(scope, None)

    def _count(self, scope: Scope, status: int | None) -> None:
        if self._state is None:
            return
        if self._names is None:
            self._names = RouteNames(scope["app"].routes)
        route = self._names.of(scope["path"])
        self._state.metrics.requests.count_http(route, scope["method"], status)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].isprintable():  # routes do not mind a line's end; keys do
            await ApiError(404, "no such path", code="not_found").response()(scope, receive, send)
            return
        refusal = self._access.refusal(scope["path"], Headers(scope=scope))
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        if scope["method"] != "POST" or self._state is None:
            await self._app(scope, receive, send)
            return
        if self._state.draining:
            error = UnavailableError(
                "the server is shutting down; send the request again", code="server_draining"
            )
            await error.response()(scope, receive, send)
            return
        with self._state.in_flight:
            await self._app(scope, receive, send)

"""Errors in Anthropic's shape, whoever raises them: `{"type": "error", "error": {...}}`."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leadline.server.errors import ApiError

_PATH = "/v1/messages"
_ERROR_FRAME = b'data: {"error":'  # no event of this API begins so
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_TYPES_IN_STREAMS = {
    "invalid_request_error": "invalid_request_error",
    "rate_limit_error": "rate_limit_error",
    "service_unavailable_error": "overloaded_error",
    "timeout_error": "timeout_error",
}


class AnthropicErrorFields(TypedDict):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(TypedDict):
    """Every answer of this API that is not a success."""

    type: Literal["error"]
    error: AnthropicErrorFields
    request_id: str


def is_for_anthropic(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a request is one of Anthropic's API: by its path, or by what its clients send."""
    return path == _PATH or path.startswith(f"{_PATH}/") or "anthropic-version" in headers


def error_body(error_type: str, message: str, request_id: str) -> bytes:
    """An error, as JSON."""
    error = {"type": error_type, "message": message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


def error_type(status: int) -> str:
    """Anthropic's name of an error with this status."""
    return _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def error_event(error: ApiError, request_id: str) -> bytes:
    """The event that tells of a failure after the stream has begun."""
    return _event(error.fields(), request_id)


def wire_error(error: ApiError, request_id: str) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an answer to a request whose head was not read to its end."""
    body = error_body(error_type(error.status), str(error), request_id)
    return body, {"request-id": request_id, **error.headers}


class AnthropicErrors:
    """ASGI middleware around all others: what they say of errors is said in Anthropic's shape."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_http = scope["type"] == "http"
        if is_http and is_for_anthropic(scope["path"], Headers(scope=scope)):
            send = _Translation(send).send
        await self._app(scope, receive, send)


class _Translation:
    """One answer on its way out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._request_id = ""
        self._start: Message | None = None  # of an error, held back until its body is known
        self._body = b""

    async def send(self, message: Message) -> None:
        """Pass on a message, or what it becomes."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            self._request_id = headers.get("x-request-id", "")
            headers["request-id"] = self._request_id
            if message["status"] >= 400 and headers.get("content-type") == "application/json":
                self._start = message
                return
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            if self._start is not None:
                await self._send_error(self._start, body, has_more=message.get("more_body", False))
                return
            if body.startswith(_ERROR_FRAME):
                message = {**message, "body": self._error_event(body)}
        await self._send(message)

    async def _send_error(self, start: Message, body: bytes, *, has_more: bool) -> None:
        self._body += body
        if has_more:
            return
        error = _error_of(self._body)
        if error is None:
            translated = self._body
        else:
            name = error_type(start["status"])
            translated = error_body(name, error["message"], self._request_id)
        MutableHeaders(scope=start)["content-length"] = str(len(translated))
        self._start = None
        await self._send(start)
        await self._send({"type": "http.response.body", "body": translated})

    def _error_event(self, frame: bytes) -> bytes:
        error = _error_of(frame.removeprefix(b"data: ")) or {"message": "", "type": ""}
        return _event(error, self._request_id)


def _event(error: Mapping[str, Any], request_id: str) -> bytes:
    name = _TYPES_IN_STREAMS.get(error["type"], "api_error")
    body = error_body(name, error["message"], request_id)
    return b"event: error\ndata: " + body + b"\n\n"


def _error_of(body: bytes) -> dict[str, Any] | None:
    """The error in an envelope of `leadline.server.errors`; None if it is no such envelope."""
    data = msgspec.json.decode(body)
    error = data.get("error") if isinstance(data, dict) else None
    return error if isinstance(error, dict) else None

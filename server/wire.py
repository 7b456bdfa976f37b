"""Limits of a connection: what uvicorn would take without end, and for ever."""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from leadline.server.errors import ApiError
from leadline.server.messages.envelope import is_for_anthropic, wire_error

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 8192
MAX_HEAD_BYTES = 64 * 2**10  # request line and headers
MAX_HEADERS = 128
MAX_HEAD_S = 10.0  # from a request's first byte to its last header
MAX_WRITE_PAUSE_S = 30.0  # how long a client may leave unread what fills its buffers


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; what is beyond them is answered once, and cut."""

    url = b""  # until a request has begun
    _timer: asyncio.TimerHandle | None = None  # for the head
    _write_timer: asyncio.TimerHandle | None = None
    _in_head = True
    _has_begun = False
    _num_head_bytes = 0
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            message = f"there are {MAX_CONNECTIONS} connections already; try again later"
            headers = {"Retry-After": "1"}
            self._refuse(ApiError(503, message, code="too_many_connections", headers=headers))
            return
        self._timer = self.loop.call_later(self.timeout_keep_alive, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything about it."""
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come; a head is not kept beyond its limit, even where it has no end."""
        if self._is_refused:
            return
        self._has_begun = False
        super().data_received(data)
        # What of the first piece belongs to the head is not known; pieces are small enough.
        if self._in_head and not self._has_begun:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES:
                self._refuse_head("larger than", MAX_HEAD_BYTES, "bytes")

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._has_begun = True
        if not self._is_refused:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Start the request, if its head is within limits."""
        if self._is_refused:
            return
        self._in_head = False
        self._stop_timer()
        num_bytes = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers)
        if num_bytes > MAX_HEAD_BYTES:
            self._refuse_head("larger than", MAX_HEAD_BYTES, "bytes")
        elif len(self.headers) > MAX_HEADERS:
            self._refuse_head("longer than", MAX_HEADERS, "headers")
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand over a part of the body."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request's end; the next one's head may follow."""
        if not self._is_refused:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not read; give it a while."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(MAX_WRITE_PAUSE_S, self._cut)

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Nothing has come for long; what the client has not read yet, it does not want."""
        self.transport.abort()

    def _await_head(self) -> None:
        self._stop_timer()
        self._in_head, self._num_head_bytes = True, 0
        self._timer = self.loop.call_later(MAX_HEAD_S, self._on_slow_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_slow_head(self) -> None:
        message = f"the request's head has not come whole within {MAX_HEAD_S:g} s"
        self._refuse(ApiError(408, message, code="request_timeout"))

    def _refuse_head(self, how: str, limit: int, unit: str) -> None:
        message = f"the request's head is {how} {limit} {unit}; send less"
        self._refuse(ApiError(431, message, code="request_header_fields_too_large"))

    def _refuse(self, error: ApiError) -> None:
        """Answer with an error, and close; what the client still sends is not read."""
        self._is_refused = True
        self._stop_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # another answer is being written
            return
        path = self.url.partition(b"?")[0].decode("latin-1")
        self.transport.write(_bytes_of(error, is_anthropic=is_for_anthropic(path, {})))
        self.transport.close()

    def _cut(self) -> None:
        logger.info("a client is cut that has not read for %g s", MAX_WRITE_PAUSE_S)
        self.transport.abort()


def _bytes_of(error: ApiError, *, is_anthropic: bool) -> bytes:
    body, headers = wire_error(error) if is_anthropic else (error.body(), error.headers)
    reasons: dict[int, Any] = {408: "Request Timeout", 431: "Request Header Fields Too Large"}
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **headers,
    }
    head = f"HTTP/1.1 {error.status} {reasons.get(error.status, 'Service Unavailable')}\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{head}{lines}\r\n".encode("latin-1") + body

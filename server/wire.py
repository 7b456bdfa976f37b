"""Limits of a connection: what uvicorn would take without end, and for ever."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from leadline.server.body_writer import offer
from leadline.server.errors import ApiError
from leadline.server.limits import FLAG, Limits
from leadline.server.messages.envelope import is_for_anthropic, wire_error
from leadline.server.request_id import request_id_of

logger = logging.getLogger(__name__)

_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; what is beyond them is answered once, and cut.

    Attributes:
        has_room: whether the connection is within its limit; None to count those of this process.
        on_lost: called when the connection is gone.
    """

    url = b""  # until a request has begun
    limits: ClassVar[Limits] = Limits()
    has_room: bool | None = None
    on_lost: Callable[[], None] | None = None

    _timer: asyncio.TimerHandle | None = None  # for the head
    _write_timer: asyncio.TimerHandle | None = None
    _in_head = True
    _has_begun = False
    _num_head_bytes = 0
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=self.limits.unread_bytes)
        # Not every event loop asks for it; without it a body waits 40 ms for its headers' receipt.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        most = self.limits.connections
        has_room = len(self.connections) <= most if self.has_room is None else self.has_room
        if not has_room:
            message = f"there are {most} connections already; try again later"
            headers = {"Retry-After": "1"}
            self._refuse(ApiError(503, message, code="too_many_connections", headers=headers))
            return
        self._timer = self.loop.call_later(self.timeout_keep_alive, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything about it."""
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Parse what has come; a head is not kept beyond its limit, even where it has no end."""
        if self._is_refused:
            return
        self._has_begun = False
        super().data_received(data)
        # What of the first piece belongs to the head is not known; pieces are small enough.
        if self._in_head and not self._has_begun:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > self.limits.head_bytes:
                self._refuse_head("larger than", "head_bytes")

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._has_begun = True
        if not self._is_refused:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        if self._is_refused:
            return
        super().on_url(url)
        most = self.limits.url_bytes
        if len(self.url) > most:
            message = f"the URL is longer than {most} bytes; send less ({FLAG} url_bytes)"
            self._refuse(ApiError(414, message, code="uri_too_long"))

    def on_headers_complete(self) -> None:
        """Start the request, if its head is within limits."""
        if self._is_refused:
            return
        self._in_head = False
        self._stop_timer()
        num_bytes = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers)
        if num_bytes > self.limits.head_bytes:
            self._refuse_head("larger than", "head_bytes")
        elif len(self.headers) > self.limits.headers:
            self._refuse_head("longer than", "headers")
        else:
            super().on_headers_complete()
            if self.cycle is not None:
                offer(self.scope, self.cycle)

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
            self._write_timer = self.loop.call_later(self.limits.unread_s, self._cut)

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
        self._timer = self.loop.call_later(self.limits.head_s, self._on_slow_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_slow_head(self) -> None:
        message = f"the request's head has not come whole within {self.limits.head_s:g} s"
        self._refuse(ApiError(408, message, code="request_timeout"))

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the envelope of all errors."""
        if not self._is_refused:  # else this is the rest of what has been answered already
            message = "the request is not valid HTTP/1.1; see that head and length are whole"
            self._refuse(ApiError(400, message, code="invalid_http"))

    def _refuse_head(self, how: str, limit: str) -> None:
        most, unit = getattr(self.limits, limit), limit.removeprefix("head_")
        message = f"the request's head is {how} {most} {unit}; send less ({FLAG} {limit})"
        self._refuse(ApiError(431, message, code="request_header_fields_too_large"))

    def _refuse(self, error: ApiError) -> None:
        """Answer with an error, and close; what the client still sends is not read."""
        self._is_refused = True
        self._stop_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            is_its_body = self.cycle.more_body and not self.pipeline
            if self.cycle.response_started or not is_its_body:
                self.transport.abort()  # another answer is on its way
                return
            self.cycle.disconnected = True  # its body is no good: what it would answer is not sent
            self.cycle.message_event.set()
        path = self.url.partition(b"?")[0].decode("latin-1")
        self.transport.write(
            _bytes_of(error, self._request_id(), is_anthropic=is_for_anthropic(path, {}))
        )
        self.transport.close()

    def _request_id(self) -> str:
        """The client's, if its header has come already."""
        found = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers or ()
        ]
        return request_id_of(dict(found))

    def _cut(self) -> None:
        logger.info("a client is cut that has not read for %g s", self.limits.unread_s)
        self.transport.abort()


def bounded_protocol(limits: Limits) -> type[BoundedProtocol]:
    """The protocol with these limits."""
    return (
        BoundedProtocol if limits == Limits() else type("_", (BoundedProtocol,), {"limits": limits})
    )


def _bytes_of(error: ApiError, request_id: str, *, is_anthropic: bool) -> bytes:
    body, headers = wire_error(error, request_id) if is_anthropic else (error.body(), error.headers)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-Id": request_id,
        **headers,
    }
    head = f"HTTP/1.1 {error.status} {_REASONS[error.status]}\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{head}{lines}\r\n".encode("latin-1") + body

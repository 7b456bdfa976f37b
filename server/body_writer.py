"""Writes parts of an answer's body straight to the connection, past all that wraps `send`."""

from typing import TYPE_CHECKING, Any

from starlette.types import Scope

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_EXTENSION = "leadline.body_writer"


class BodyWriter:
    """For one answer whose head has been sent through `send`, and whose end will be too.

    Attributes:
        num_parts: how many it has sent.
    """

    __slots__ = ("_cycle", "_flow", "_write", "num_parts")

    def __init__(self, cycle: "RequestResponseCycle") -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._write = cycle.transport.write
        self.num_parts = 0

    @property
    def is_usable(self) -> bool:
        """Whether the body goes out in chunks; if not, `send` has to be used."""
        return bool(self._cycle.chunked_encoding)

    @property
    def is_free(self) -> bool:
        """Whether `write_now` may be called: the client is there, and has not much left to read."""
        cycle = self._cycle
        return not (self._flow.write_paused or cycle.disconnected) and bool(cycle.chunked_encoding)

    def write_now(self, part: bytes) -> None:
        """Send a part, not empty."""
        self.num_parts += 1
        self._write(b"%x\r\n%b\r\n" % (len(part), part))

    async def write(self, part: bytes) -> None:
        """Send a part, not empty; waits where the client has much left to read."""
        if self._cycle.disconnected:
            return
        self.write_now(part)
        if self._flow.write_paused:
            await self._flow.drain()


def offer(scope: "HTTPScope", cycle: "RequestResponseCycle") -> None:
    """Let the application find a writer in the scope of its request."""
    extensions: dict[str, Any] = {_EXTENSION: BodyWriter(cycle)}
    scope["extensions"] = extensions


def find(scope: Scope) -> BodyWriter | None:
    """The writer that the HTTP server has offered, if any."""
    writer = scope.get("extensions", {}).get(_EXTENSION)
    assert writer is None or isinstance(writer, BodyWriter)
    return writer

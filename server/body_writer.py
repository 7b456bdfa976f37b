"""Writes parts of an answer's body straight to the connection, past all that wraps `send`."""

from typing import TYPE_CHECKING, Any

from starlette.types import Scope

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_EXTENSION = "leadline.body_writer"


class BodyWriter:
    """For one answer whose head has been sent through `send`, and whose end will be too."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: "RequestResponseCycle") -> None:
        self._cycle = cycle

    @property
    def is_usable(self) -> bool:
        """Whether the body goes out in chunks; if not, `send` has to be used."""
        return bool(self._cycle.chunked_encoding)

    async def write(self, part: bytes) -> None:
        """Send a part, not empty; waits where the client has much left to read."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        if cycle.flow.write_paused:
            await cycle.flow.drain()


def offer(scope: "HTTPScope", cycle: "RequestResponseCycle") -> None:
    """Let the application find a writer in the scope of its request."""
    extensions: dict[str, Any] = {_EXTENSION: BodyWriter(cycle)}
    scope["extensions"] = extensions


def find(scope: Scope) -> BodyWriter | None:
    """The writer that the HTTP server has offered, if any."""
    writer = scope.get("extensions", {}).get(_EXTENSION)
    assert writer is None or isinstance(writer, BodyWriter)
    return writer

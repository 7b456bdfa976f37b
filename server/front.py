"""The seam between the life of the server and whatever answers its requests."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, NoReturn, Protocol, TypeVar

from leadline.engine.errors import EngineError
from leadline.server.server_info import ServerInfo

Result = TypeVar("Result")


class FrontError(EngineError):
    """Requests cannot be answered any more, though the engine may be well."""


class Front(Protocol):
    """Answers requests: in this process (`own_front`), or in several others (`workers.front`).

    Attributes:
        preparation: what `prepare` does, in a few words for people.
    """

    preparation: str

    def start(self, listener: socket.socket) -> None:
        """Answer probes, the page and refusals on a socket that listens already."""
        ...

    async def watch(self) -> NoReturn:
        """Wait until requests cannot be answered any more.

        Raises:
            FrontError: why.
        """
        ...

    async def prepare(self) -> None:
        """Get ready for requests; the engine is.

        Raises:
            EngineError, LoaderError: requests cannot be answered.
        """
        ...

    async def open(self, info: ServerInfo) -> None:
        """Answer everything from now on."""
        ...

    async def drain(self) -> None:
        """Refuse new requests; running ones go on."""
        ...

    @property
    def num_in_flight(self) -> int:
        """API requests that are being answered; while requests come, it may lag behind."""
        ...

    async def wait_until_idle(self, timeout_s: float) -> None:
        """Return when no request is being answered, or after `timeout_s` seconds."""
        ...

    def abandon(self) -> None:
        """Let `stop` end at once, whatever is being answered."""
        ...

    async def stop(self) -> None:
        """Write out what has been answered, and end; also where `open` was not reached."""
        ...


async def unless_failed(front: Front, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled where requests cannot be answered any more.

    Raises:
        FrontError: why.
    """
    task, watcher = asyncio.create_task(work), asyncio.create_task(front.watch())
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else watcher.result()
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)

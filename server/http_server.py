"""uvicorn, run within a loop and with signals that are not its own."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from leadline.server.limits import Limits
from leadline.server.wire import bounded_protocol

LAST_WORDS_S = 5  # for answers that only have to be written out


class HttpServer(uvicorn.Server):
    """Serves an application on a listening socket until it is told to stop."""

    def __init__(self, app: ASGIApp, *, access_log: bool, limits: Limits | None = None) -> None:
        """`access_log`: a log line for each request; `limits`: of connections."""
        limits = limits or Limits()
        config = uvicorn.Config(
            app,
            http=bounded_protocol(limits),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=access_log,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type] # any number will do
            timeout_graceful_shutdown=LAST_WORDS_S,
        )
        super().__init__(config)
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller."""
        yield

    def start(self, listener: socket.socket) -> None:
        """Answer what comes in on a socket that listens already."""
        self._task = asyncio.create_task(self.serve([listener]))

    async def stop(self) -> None:
        """Close the socket and all connections, those that are being answered last."""
        assert self._task is not None, "a server is started before it is stopped"
        self.should_exit = True
        await self._task

"""uvicorn, run within a loop and with signals that are not its own."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from leadline.server.certificate import Certificate
from leadline.server.config import ServerConfig
from leadline.server.cors import with_cors
from leadline.server.limits import Limits
from leadline.server.wire import BoundedProtocol, bounded_protocol

logger = logging.getLogger(__name__)

LAST_WORDS_S = 5  # for answers that only have to be written out


class HttpServer(uvicorn.Server):
    """Serves an application on a listening socket until it is told to stop."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        access_log: bool,
        limits: Limits | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            app: what answers.
            access_log: a log line for each request.
            limits: of connections.
            certificate: None for plain HTTP.
        """
        limits = limits or Limits()
        self._protocol: type[BoundedProtocol] = bounded_protocol(limits)
        config = uvicorn.Config(
            app,
            http=self._protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=access_log,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type] # any number will do
            timeout_graceful_shutdown=LAST_WORDS_S,
        )
        if certificate is not None:
            config.load()  # which would forget the context
            config.ssl = certificate.context
        super().__init__(config)
        self._certificate = certificate
        # For whoever connects and says nothing; a head that is begun has as long again.
        self._handshake_s = None if certificate is None else limits.head_s
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with a limit for the time of a TLS handshake."""
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._make_protocol,
                sock=listener,
                ssl=self.config.ssl,
                backlog=self.config.backlog,
                ssl_handshake_timeout=self._handshake_s,
            )
            for listener in sockets or ()
        ]
        self.started = True

    def start(self, listener: socket.socket | None = None) -> None:
        """Answer what comes in on a socket that listens already; None for what is handed over."""
        self._task = asyncio.create_task(self._serve_and_watch(listener))

    async def take(
        self, connection: socket.socket, on_lost: Callable[[], None], *, has_room: bool
    ) -> None:
        """Answer what comes in on a connection that somebody else has accepted.

        Args:
            connection: closed by the server, whatever happens.
            on_lost: called when it is gone.
            has_room: False to answer that there are too many connections.
        """
        protocol = self._make_protocol()
        protocol.has_room, protocol.on_lost = has_room, on_lost
        loop, is_taken = asyncio.get_running_loop(), False
        try:
            connection.setblocking(False)
            await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self.config.ssl,
                ssl_handshake_timeout=self._handshake_s,
            )
            is_taken = True
        except OSError as error:  # it is gone already, or does not speak TLS
            logger.debug("a connection was lost before it was made: %r", error)
        finally:
            if not is_taken:
                connection.close()
                if protocol.transport is None:  # else the protocol tells
                    on_lost()

    def _make_protocol(self) -> BoundedProtocol:
        return self._protocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def _serve_and_watch(self, listener: socket.socket | None) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if self._certificate is not None:
                await stack.enter_async_context(self._certificate.watched())
            await self.serve([] if listener is None else [listener])

    async def stop(self) -> None:
        """Close the socket and all connections, those that are being answered last."""
        assert self._task is not None, "a server is started before it is stopped"
        self.should_exit = True
        await self._task


def make_http_server(app: ASGIApp, config: ServerConfig) -> HttpServer:
    """The server that a config asks for.

    Raises:
        ConfigError: a certificate that cannot be used.
    """
    return HttpServer(
        with_cors(app, config.cors_origin),
        access_log=config.access_log,
        limits=config.limits,
        certificate=Certificate.of(config.ssl_certfile, config.ssl_keyfile),
    )

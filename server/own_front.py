"""Requests are answered in this process: what `leadline serve` does without `--api-workers`."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import NoReturn

from leadline.engine.client import EngineClient
from leadline.engine.config import ResolvedConfig
from leadline.server.access import Access
from leadline.server.app import create_app
from leadline.server.config import ServerConfig
from leadline.server.doorway import Doorway
from leadline.server.garbage import settle
from leadline.server.health import StallLimits
from leadline.server.http_server import make_http_server
from leadline.server.make_state import prepared_state
from leadline.server.reporters import Reporter
from leadline.server.served_model import ServedModel
from leadline.server.server_info import ServerInfo
from leadline.server.state import ServerState


class OwnFront:
    """See `front.Front`."""

    preparation = "checks of requests"

    def __init__(
        self,
        config: ServerConfig,
        resolved: ResolvedConfig,
        served: ServedModel,
        client: EngineClient,
        *,
        reporters: Sequence[Reporter] = (),
        stall_limits: StallLimits | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            config: of the HTTP side.
            resolved: of the engine.
            served: what the model's files say.
            client: of the engine.
            reporters: are told of each request that has ended.
            stall_limits: from when on the engine counts as stuck; None for the usual ones.

        Raises:
            ConfigError: a certificate that cannot be used.
        """
        self._config = config
        self._resolved = resolved
        self._served = served
        self._client = client
        self._reporters = reporters
        self._stall_limits = stall_limits
        self._doorway = Doorway()
        self._server = make_http_server(self._doorway, config)
        self._state: ServerState | None = None
        self._children = contextlib.AsyncExitStack()

    def start(self, listener: socket.socket) -> None:
        """See `Front`."""
        self._server.start(listener)

    async def watch(self) -> NoReturn:
        """See `Front`; nothing can fail that would not end this process."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def prepare(self) -> None:
        """See `Front`."""
        self._state = await self._children.enter_async_context(
            prepared_state(self._config, self._resolved, self._served, self._client)
        )
        self._state.reporters += self._reporters

    async def open(self, info: ServerInfo) -> None:
        """See `Front`."""
        assert self._state is not None, "a front is prepared before it is opened"
        self._state.info = info
        access = Access.of_config(self._config)
        self._doorway.open(create_app(self._state, access=access, stall_limits=self._stall_limits))
        settle()

    async def drain(self) -> None:
        """See `Front`."""
        assert self._state is not None, "a front is prepared before it is drained"
        self._state.draining = True

    @property
    def num_in_flight(self) -> int:
        """See `Front`."""
        return 0 if self._state is None else self._state.in_flight.count

    async def wait_until_idle(self, timeout_s: float) -> None:
        """See `Front`."""
        if self._state is not None:
            await self._state.in_flight.wait_until_idle(timeout_s)

    def abandon(self) -> None:
        """See `Front`."""
        self._server.force_exit = True

    async def stop(self) -> None:
        """See `Front`."""
        await self._children.aclose()
        await self._server.stop()

"""Connections that another process has accepted, as they come in on a socket."""

import asyncio
import socket
from collections.abc import Callable

from leadline.server.http_server import HttpServer
from leadline.server.workers.messages import WITHIN_LIMIT

_BATCH = 64  # connections taken before anything else has its turn
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class HandedConnections:
    """Lets a server answer on them, while it is entered.

    Attributes:
        num_closed: how many have come and are gone.
    """

    def __init__(self, descriptor: int, server: HttpServer, on_closed: Callable[[], None]) -> None:
        """Take nothing yet.

        Args:
            descriptor: of the socket; with each connection comes a byte (`messages`).
            server: answers.
            on_closed: called soon after connections are gone.
        """
        self.num_closed = 0
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._server = server
        self._on_closed = on_closed
        self._is_told = True
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "HandedConnections":
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._take_batch)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _take_batch(self) -> None:
        for _ in range(_BATCH):
            try:
                mark, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1, _CLOSE_ON_EXEC)
            except BlockingIOError:
                return
            if not mark:  # the parent is gone, and so is this process soon
                self._loop.remove_reader(self._socket)
                return
            if not descriptors:  # this process has no room for one more
                self._close()
                continue
            connection = socket.socket(fileno=descriptors[0])
            taking = self._server.take(connection, self._close, has_room=mark == WITHIN_LIMIT)
            task = asyncio.create_task(taking)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _close(self) -> None:
        self.num_closed += 1
        if self._is_told:
            self._is_told = False
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._is_told = True
        self._on_closed()

"""Accepts connections, and hands each to the worker that has the fewest."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Protocol

logger = logging.getLogger(__name__)

_BATCH = 64  # connections accepted before anything else has its turn
_RETRY_S = 0.01
_NO_ROOM_S = 1.0  # until it is tried again, where this process can open no more files


class Taker(Protocol):
    """Answers on connections (`worker_process.WorkerProcess`)."""

    @property
    def takes_connections(self) -> bool:
        """Whether it is worth trying."""
        ...

    @property
    def num_connections(self) -> int:
        """How many it has."""
        ...

    def hand_over(self, connection: socket.socket, *, has_room: bool) -> bool:
        """Give it one more; False if it does not take it."""
        ...


class Door:
    """The listening socket of a server with several workers.

    One process accepts, rather than all: workers that wait on one socket, or on one each that the
    kernel chooses by a hash, get connections as it happens, and where they are few and long, one
    worker is busy while others idle. Here the limit of open connections holds for all together,
    and while no worker lives, clients wait in the socket's queue.
    """

    def __init__(
        self, listener: socket.socket, takers: Sequence[Taker], *, max_connections: int
    ) -> None:
        """Accept nothing yet.

        Args:
            listener: listens already; stays the caller's to close.
            takers: in the order in which the first connections go round.
            max_connections: of all together; to those beyond it a worker says so.
        """
        self._listener = listener
        self._takers = takers
        self._max_connections = max_connections
        self._next = 0
        self._held: socket.socket | None = None  # accepted, and nobody has taken it
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = True
        self._is_watching = False

    def open(self) -> None:
        """Accept connections, while there is anybody to take them."""
        self._listener.setblocking(False)
        self._is_closed = False
        self.update()

    def close(self) -> None:
        """Accept no more."""
        self._is_closed = True
        self._stop_timer()
        self.update()
        if self._held is not None:
            self._held.close()
            self._held = None

    def update(self) -> None:
        """Look again at who takes connections: to be called where that has changed."""
        loop = asyncio.get_running_loop()
        may_accept = not self._is_closed and self._timer is None and bool(self._ready_takers())
        if may_accept and not self._is_watching:
            loop.add_reader(self._listener, self._accept)
        elif self._is_watching and not may_accept:
            loop.remove_reader(self._listener)
        self._is_watching = may_accept

    def _ready_takers(self) -> list[Taker]:
        return [taker for taker in self._takers if taker.takes_connections]

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("no connection can be accepted at the moment: %s", error)
                self._pause(_NO_ROOM_S)
                return
            if not self._give_away(connection):
                self._held = connection
                self._pause(_RETRY_S)
                return

    def _give_away(self, connection: socket.socket) -> bool:
        """Hand a connection to whoever has the fewest and takes it."""
        num_connections = sum(taker.num_connections for taker in self._takers)
        has_room = num_connections < self._max_connections
        first = self._next
        turns = [*range(first, len(self._takers)), *range(first)]
        candidates = [index for index in turns if self._takers[index].takes_connections]
        for index in sorted(candidates, key=lambda index: self._takers[index].num_connections):
            if self._takers[index].hand_over(connection, has_room=has_room):
                connection.close()  # it has its own descriptor
                self._next = (index + 1) % len(self._takers)
                return True
        return False

    def _pause(self, duration_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(duration_s, self._go_on)
        self.update()

    def _go_on(self) -> None:
        self._timer = None
        if self._held is not None:
            if not self._give_away(self._held):
                self._pause(_RETRY_S)
                return
            self._held = None
        self.update()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

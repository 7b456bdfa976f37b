"""Outputs on their way from the engine's messages to their requests, in portions."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

import zmq
import zmq.asyncio

from leadline.engine.request import RequestOutput

REQUESTS_A_PORTION = 64

Push = Callable[[Sequence[RequestOutput]], int]
"""Is offered outputs of a request, one or more; returns how many of the first it has taken."""


class Delivery:
    """Keeps outputs until their turn comes: a request's in their order, all that wait at once.

    Between portions whoever delivers lets others run, and looks for more messages: one that falls
    behind finds several outputs of a request, which cost one write together.
    """

    def __init__(self, pass_on: Callable[[list[RequestOutput]], None]) -> None:
        """`pass_on`: is given what waits for a request, in its turn."""
        self._pass_on = pass_on
        self._waiting: dict[str, list[RequestOutput]] = {}

    async def receive(self, socket: zmq.asyncio.Socket, handle: Callable[[bytes], None]) -> None:
        """Give messages to `handle`, which adds outputs, and pass these on; for ever."""
        while True:
            handle(await socket.recv())
            while self._waiting:
                self.pass_on_portion()
                await asyncio.sleep(0)  # others run
                while int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                    handle(await socket.recv())

    def add(self, outputs: list[RequestOutput]) -> None:
        """Take what a step has produced."""
        waiting = self._waiting
        for output in outputs:
            if (before := waiting.get(output.request_id)) is None:
                waiting[output.request_id] = [output]
            else:
                before.append(output)

    def pass_on_portion(self) -> None:
        """Pass on what waits for the next `REQUESTS_A_PORTION` requests."""
        waiting = self._waiting
        for request_id in list(islice(waiting, REQUESTS_A_PORTION)):
            self._pass_on(waiting.pop(request_id))

    def pass_on_all(self) -> None:
        """Pass on all that waits."""
        while self._waiting:
            self.pass_on_portion()

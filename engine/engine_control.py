"""An operator's hold on the engine, as a client gives its orders and hears that they are done."""

import asyncio
from collections.abc import Callable
from itertools import count

from leadline.engine.control import (
    AbortRequests,
    Done,
    Order,
    Pause,
    PauseMode,
    Resume,
    Sleep,
    WakeUp,
)
from leadline.engine.errors import OrderRefusedError


class EngineControl:
    """Gives orders, and waits for each; for use within one event loop.

    All raise `EngineDeadError` if the engine ends first, and `OrderRefusedError` if it cannot obey.
    """

    def __init__(self, send: Callable[[Order], None]) -> None:
        """`send` raises EngineDeadError where there is no engine to send to."""
        self._send = send
        self._tickets = count()
        self._waiting: dict[int, asyncio.Future[Done]] = {}

    async def pause(self, mode: PauseMode) -> bool:
        """Let the engine take no more steps; returns once it takes none.

        Returns:
            Whether it is paused; not so if somebody has resumed it before it was.
        """
        return (await self._give(lambda ticket: Pause(ticket, mode))).is_paused

    async def resume(self) -> None:
        """Let the engine take steps again."""
        await self._give(Resume)

    async def sleep(self, level: int, mode: PauseMode) -> int | None:
        """Let the engine pause and give up memory: pages (level 1), or the weights too (2).

        Returns:
            How many bytes it has given up; None if somebody has resumed it before it was paused.
        """
        done = await self._give(lambda ticket: Sleep(ticket, level, mode))
        return done.num_bytes if done.is_paused else None

    async def wake_up(self) -> None:
        """Let the engine take its memory back and go on."""
        await self._give(WakeUp)

    async def abort(self, names: list[str] | None = None) -> list[str]:
        """End requests with `abort`; returns the first name of each API request that had any.

        Args:
            names: any names of theirs (`EngineRequest.names`); None for all requests.
        """
        return (await self._give(lambda ticket: AbortRequests(ticket, names))).names

    def hear(self, done: Done) -> None:
        """The engine has carried out an order; nobody may be waiting any more."""
        future = self._waiting.pop(done.ticket, None)
        if future is not None and not future.done():
            if done.refusal:
                future.set_exception(OrderRefusedError(done.refusal))
            else:
                future.set_result(done)

    def fail(self, error: Exception) -> None:
        """The engine has ended; all who wait get the error."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)

    async def _give(self, order_of: Callable[[int], Order]) -> Done:
        ticket = next(self._tickets)
        self._send(order_of(ticket))
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        return await future

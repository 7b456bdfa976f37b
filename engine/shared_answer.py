"""One answer for all who ask while it is on its way."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedAnswer(Generic[T]):
    """What was asked once and several wait for; for use within one event loop."""

    def __init__(self) -> None:
        self._future: asyncio.Future[T] | None = None

    async def wait(self, ask: Callable[[], None]) -> T:
        """The answer, once it has come; asks for it unless somebody has already.

        Raises:
            Exception: what `fail` was given.
        """
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
            # Those who asked may have gone by the time that it fails.
            self._future.add_done_callback(lambda future: future.exception())
            ask()
        return await asyncio.shield(self._future)

    def give(self, answer: T) -> None:
        """Tell all who wait."""
        assert self._future is not None, "nobody has asked"
        self._future.set_result(answer)
        self._future = None

    def fail(self, error: Exception) -> None:
        """Let all who wait fail; without effect if nobody does."""
        if self._future is not None:
            self._future.set_exception(error)
            self._future = None

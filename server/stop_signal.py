"""SIGINT and SIGTERM: the first asks for an end, the second ends at once."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Catches both signals in a `with` block; the second cancels the task that entered it.

    Attributes:
        number: of the first signal; None before it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._asked = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> "StopSignal":
        self._task = asyncio.current_task()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    @property
    def status(self) -> int:
        """The exit status of a program that the signal has ended early."""
        return 128 + (self.number or 0)

    async def run_until(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """The result of `work`; at the first signal it is cancelled, and the result is None."""
        task = asyncio.create_task(work)
        watcher = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            watcher.cancel()
            await asyncio.gather(task, watcher, return_exceptions=True)

    def _on_signal(self, number: int) -> None:
        if self.number is None:
            self.number = number
            self._asked.set()
        elif self._task is not None:
            self._task.cancel()
            self._task = None

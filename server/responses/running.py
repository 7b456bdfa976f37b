"""The responses that this process makes in the background, and what others have to say of them."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterator

from leadline.server.responses.store import ResponseStore

logger = logging.getLogger(__name__)
_LOOK_S = 0.25


class RunningResponses:
    """Cancels the work on responses that any process has been asked to end.

    Attributes:
        tasks: those that make the responses.
    """

    def __init__(self, store: ResponseStore) -> None:
        """`store`: of this process, which is told that they are still being made."""
        self.tasks: set[asyncio.Task[None]] = set()
        self._store = store
        self._work: dict[str, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watched(self, response_id: str, work: asyncio.Task[None]) -> Iterator[None]:
        """While this lasts, the work is cancelled if it is not wanted any more."""
        self._work[response_id] = work
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())
        try:
            yield
        finally:
            del self._work[response_id]

    async def _look(self) -> None:
        while self._work:
            try:
                unwanted = await asyncio.to_thread(self._store.unwanted, list(self._work))
            except sqlite3.Error:
                logger.exception("the store of responses cannot be read")
                unwanted = []
            for response_id in unwanted:
                if response_id in self._work:
                    self._work[response_id].cancel()
            await asyncio.sleep(_LOOK_S)

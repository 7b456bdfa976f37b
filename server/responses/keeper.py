"""Keeps one response, off the event loop."""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence

import msgspec

from leadline.server.responses.history import items_json
from leadline.server.responses.items import Item
from leadline.server.responses.records import LogState, StoredResponse
from leadline.server.responses.response import Response
from leadline.server.responses.store import ResponseStore

logger = logging.getLogger(__name__)


class Keeper:
    """Puts one response into the store, and its next states."""

    def __init__(self, store: ResponseStore, owner: str, items: Sequence[Item]) -> None:
        """Keep a response.

        Args:
            store: where to.
            owner: the caller who may ask for it.
            items: the conversation that it answers.
        """
        self._store = store
        self._owner = owner
        self._items = items

    async def add(self, response: Response, *, log: LogState | None = None) -> None:
        """Keep it.

        Args:
            response: as it stands.
            log: "open" if its events are to be kept.

        Raises:
            sqlite3.Error: it cannot be kept.
        """
        await asyncio.to_thread(self._add, response, log)

    async def try_to_add(self, response: Response) -> None:
        """Keep it. An answer is not lost where that fails: it says that it is not kept."""
        try:
            await self.add(response)
        except sqlite3.Error:
            logger.exception("the response %s could not be kept", response.id)
            response.store = False

    async def update(self, response: Response) -> None:
        """Keep its next state, if it has not been deleted."""
        body = msgspec.json.encode(response)
        await asyncio.to_thread(self._store.update, response.id, response.status, body)

    def _add(self, response: Response, log: LogState | None) -> None:
        stored = StoredResponse(
            id=response.id,
            owner=self._owner,
            status=response.status,
            body=msgspec.json.encode(response),
            items=items_json(self._items, response.id),
            log=log,
        )
        self._store.put(stored)

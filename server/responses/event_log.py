"""The events of a response that is made in the background: kept as they come, and told again."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncGenerator
from typing import Any

from leadline.server.chunk_frames import encode_line
from leadline.server.errors import ApiError
from leadline.server.responses.store import ResponseStore

logger = logging.getLogger(__name__)
LOST = "the process that made the response is gone; send the request again"
_WAITING = b": waiting\n\n"  # what clients skip: it has been accepted, though there is no news
_LOOK_S = 0.1  # how often is looked whether another process has made more


class EventLog:
    """Keeps the events of one response, off the event loop and in as few steps as it can.

    Attributes:
        news: set whenever more is kept.
    """

    def __init__(self, store: ResponseStore, response_id: str) -> None:
        """Keep events of a response that is in the store, and whose log is open."""
        self.news = asyncio.Event()
        self._store = store
        self._response_id = response_id
        self._frames: list[bytes] = []
        self._num_kept = 0
        self._writing: asyncio.Task[None] | None = None

    def push(self, frame: bytes) -> None:
        """Keep the next event."""
        self._frames.append(frame)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Keep what is left, and say that there is no more."""
        if self._writing is not None:
            await self._writing
        with contextlib.suppress(sqlite3.Error):
            await asyncio.to_thread(self._store.close_log, self._response_id)
        self.news.set()

    async def _write(self) -> None:
        while self._frames:
            frames, self._frames = self._frames, []
            first, self._num_kept = self._num_kept, self._num_kept + len(frames)
            try:
                await asyncio.to_thread(self._store.add_events, self._response_id, first, frames)
            except sqlite3.Error:
                logger.exception("events of the response %s are lost", self._response_id)
                with contextlib.suppress(sqlite3.Error):
                    await asyncio.to_thread(self._store.drop_log, self._response_id)
            self.news.set()


class Replay:
    """One reader of a log, who may come late."""

    def __init__(
        self,
        store: ResponseStore,
        response_id: str,
        *,
        after: int = -1,
        news: asyncio.Event | None = None,
    ) -> None:
        """Tell the events of a response.

        Args:
            store: where they are.
            response_id: the response.
            after: the number of the last event that is not wanted any more; -1 for all events.
            news: see `EventLog`; nobody else may wait for it. None where another reader does, or
                another process makes the response.
        """
        self._store = store
        self._response_id = response_id
        self._after = after
        self._news = asyncio.Event() if news is None else news

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The events, up to the last of them.

        Raises:
            ApiError: there will be no more, though there should.
        """
        is_open = False
        while True:
            self._news.clear()
            page = await asyncio.to_thread(self._store.events, self._response_id, self._after)
            if page is None:
                raise ApiError(404, "the response has been deleted", code="not_found")
            if page.frames:
                is_open, self._after = True, page.frames[-1][0]
                yield b"".join(frame for _, frame in page.frames)
            elif page.log == "closed":
                return
            elif page.log == "dropped":
                raise ApiError(
                    404,
                    "there is no more room for the events of the response; ask for the response",
                    code="events_dropped",
                )
            elif page.is_lost:
                raise ApiError(500, LOST, code="response_lost")
            else:
                if not is_open:
                    is_open = True
                    yield _WAITING
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), _LOOK_S)

    def failure(self, error: ApiError) -> bytes:
        """The last frame of a stream that breaks off."""
        return event_frame("error", self._after + 1, error_fields(error))


def event_frame(event: str, number: int, fields: dict[str, Any]) -> bytes:
    """An event as it is sent.

    Args:
        event: its type.
        number: counts the events of a response from 0.
        fields: what else there is.
    """
    data = encode_line({"type": event, "sequence_number": number, **fields})
    return b"event: %s\ndata: %s\n\n" % (event.encode(), data)


def error_fields(error: ApiError) -> dict[str, Any]:
    """What the event `error` says."""
    return {"code": error.code or "server_error", "message": str(error), "param": error.param}

"""Responses that can be asked for again: a bounded sqlite file, which several processes share."""

import json
import shutil
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

from leadline.server.responses.database import connect
from leadline.server.responses.records import LOST_S, RUNNING, EventPage, StoredResponse

_MAX_EVENTS = 500  # that are read at once
_ENDED = "(status NOT IN (?, ?) OR seen_s < ?)"  # or lost
_NEXT_USE = "(SELECT COALESCE(MAX(last_use), 0) + 1 FROM responses)"


class ResponseStore:
    """Keeps responses; the least recently used go first, those that still run never.

    Events of a response count as part of it, and go before it. Where those that run would have more
    events than there is room for, theirs are dropped, and only these.

    The file appears with the first use, in a directory that nobody else may read. Every method
    blocks for as long as the file does; any thread may call it.
    """

    def __init__(
        self, directory: Path | None = None, *, max_responses: int, max_bytes: int
    ) -> None:
        """Keep responses.

        Args:
            directory: another process's, which removes it; None for one of this store's own, which
                `close` removes, and the end of this process.
            max_responses: most that are kept.
            max_bytes: most bytes of bodies, items and events together.
        """
        self._directory = directory
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._end: weakref.finalize[..., ResponseStore] | None = None

    @property
    def is_enabled(self) -> bool:
        """Whether there is room for any response."""
        return self._max_responses > 0 and self._max_bytes > 0

    @property
    def directory(self) -> Path:
        """Where the file lies; made if there is none yet."""
        with self._lock:
            self._open()
            assert self._directory is not None
            return self._directory

    def open(self) -> None:
        """Make the file, where it would be made by its first use."""
        with self._lock:
            self._open()

    def put(self, response: StoredResponse) -> None:
        """Keep a new response."""
        size = len(response.body) + len(response.items)
        with self._lock, self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO responses "
                "(id, owner, status, body, items, log, num_bytes, seen_s, last_use) "
                f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, {_NEXT_USE})",
                (
                    *(response.id, response.owner, response.status, response.body),
                    *(response.items, response.log, size, time.monotonic()),
                ),
            )
            self._evict(connection)

    def update(self, response_id: str, status: str, body: bytes) -> None:
        """Keep a response's next state, if it has not been deleted."""
        with self._lock, self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "UPDATE responses SET status = ?, body = ?, "
                "num_bytes = ? + LENGTH(items) + num_event_bytes, "
                f"last_use = {_NEXT_USE} WHERE id = ?",
                (status, body, len(body), response_id),
            )
            self._evict(connection)

    def get(self, response_id: str, owner: str) -> StoredResponse | None:
        """A response, which counts as used; None if its owner has none of this id."""
        with self._lock, self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute(
                f"UPDATE responses SET last_use = {_NEXT_USE} WHERE id = ? AND owner = ? "
                "RETURNING status, body, items, log, seen_s",
                (response_id, owner),
            ).fetchone()
        if row is None:
            return None
        status, body, items, log, seen_s = row
        return StoredResponse(
            id=response_id,
            owner=owner,
            status=status,
            body=body,
            items=items,
            log=log,
            is_lost=_is_lost(status, seen_s),
        )

    def delete(self, response_id: str, owner: str) -> bool:
        """Forget a response, and end it; False if its owner has none of this id."""
        return self._change("DELETE FROM responses WHERE id = ? AND owner = ?", response_id, owner)

    def request_cancel(self, response_id: str, owner: str) -> bool:
        """Ask the process that runs a response to end it; False if the owner has none of this id.

        One that has ended stays as it is.
        """
        return self._change(
            "UPDATE responses SET is_cancelled = 1 WHERE id = ? AND owner = ?", response_id, owner
        )

    def unwanted(self, response_ids: Sequence[str]) -> list[str]:
        """Those that somebody wants ended, or has deleted; the caller makes all of them.

        That also is the sign of life that responses need.
        """
        ids = json.dumps(list(response_ids))
        with self._lock, self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "UPDATE responses SET seen_s = ? WHERE id IN (SELECT value FROM json_each(?))",
                (time.monotonic(), ids),
            )
            rows = connection.execute(
                "SELECT value FROM json_each(?) LEFT JOIN responses ON responses.id = value "
                "WHERE responses.id IS NULL OR is_cancelled",
                (ids,),
            )
            return [response_id for (response_id,) in rows]

    def add_events(self, response_id: str, first: int, frames: Sequence[bytes]) -> bool:
        """Keep more events of a response whose log is open.

        Args:
            response_id: the response.
            first: the number of the first of these events.
            frames: what was sent of them, or would be.

        Returns:
            Whether more can be kept: not of a response that has been deleted, or has too many.
        """
        num_bytes = sum(map(len, frames))
        with self._lock, self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            is_open = connection.execute(
                "UPDATE responses SET num_event_bytes = num_event_bytes + ?, "
                "num_bytes = num_bytes + ? WHERE id = ? AND log = 'open'",
                (num_bytes, num_bytes, response_id),
            ).rowcount
            if not is_open:
                return False
            connection.executemany(
                "INSERT OR IGNORE INTO events (response_id, number, frame) VALUES (?, ?, ?)",
                [(response_id, number, frame) for number, frame in enumerate(frames, first)],
            )
            if self._evict(connection):
                return True
            _drop_events(connection, response_id)
            return False

    def num_events(self, response_id: str) -> int:
        """How many events of a response are kept."""
        with self._lock, self._open() as connection:
            row = connection.execute(
                "SELECT COUNT(*) FROM events WHERE response_id = ?", (response_id,)
            ).fetchone()
        return int(row[0])

    def close_log(self, response_id: str) -> None:
        """Say that a response has no more events."""
        with self._lock, self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "UPDATE responses SET log = 'closed' WHERE id = ? AND log = 'open'", (response_id,)
            )

    def drop_log(self, response_id: str) -> None:
        """Forget the events of a response, whose log is open, and keep no more of them."""
        with self._lock, self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            _drop_events(connection, response_id)

    def events(self, response_id: str, after: int) -> EventPage | None:
        """The next events of a response, some at least if there are any.

        Args:
            response_id: the response.
            after: the number of the event before; -1 for all events.

        Returns:
            None if there is no such response, or it was made without a log.
        """
        with self._lock, self._open() as connection:
            connection.execute("BEGIN")
            row = connection.execute(
                "SELECT log, status, seen_s FROM responses WHERE id = ?", (response_id,)
            ).fetchone()
            if row is None or row[0] is None:
                return None
            frames = connection.execute(
                "SELECT number, frame FROM events WHERE response_id = ? AND number > ? "
                "ORDER BY number LIMIT ?",
                (response_id, after, _MAX_EVENTS),
            ).fetchall()
        log, status, seen_s = row
        return EventPage(frames=frames, log=log, is_lost=_is_lost(status, seen_s))

    def close(self) -> None:
        """Let the file go, and remove it if it is this store's own; a second call does nothing."""
        with self._lock:
            if self._end is not None:
                self._end()
            self._connection = None

    def _change(self, statement: str, response_id: str, owner: str) -> bool:
        with self._lock, self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            return connection.execute(statement, (response_id, owner)).rowcount > 0

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        assert self._end is None or self._end.alive, "the store is closed"
        owned = self._directory is None
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="leadline-responses-"))  # 0700
        connection = connect(self._directory / "responses.sqlite3")
        self._end = weakref.finalize(self, _let_go, connection, self._directory if owned else None)
        self._connection = connection
        return connection

    def _evict(self, connection: sqlite3.Connection) -> bool:
        """Let go of what is too much; returns whether it all fits now."""
        count, size = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(num_bytes), 0) FROM responses"
        ).fetchone()
        params = (*RUNNING, time.monotonic() - LOST_S)
        with_events = connection.execute(
            "SELECT id, num_event_bytes FROM responses "
            f"WHERE num_event_bytes > 0 AND {_ENDED} ORDER BY last_use",
            params,
        )
        dropped = []
        while size > self._max_bytes and (row := with_events.fetchone()) is not None:
            dropped.append(row[0])
            size -= row[1]
        for response_id in dropped:
            _drop_events(connection, response_id)
        oldest = connection.execute(
            f"SELECT id, num_bytes FROM responses WHERE {_ENDED} ORDER BY last_use", params
        )
        gone = []
        while count > self._max_responses or size > self._max_bytes:
            row = oldest.fetchone()
            if row is None:
                break
            gone.append((row[0],))
            count, size = count - 1, size - row[1]
        connection.executemany("DELETE FROM responses WHERE id = ?", gone)
        return bool(size <= self._max_bytes)


def _is_lost(status: str, seen_s: float) -> bool:
    return status in RUNNING and seen_s < time.monotonic() - LOST_S


def _drop_events(connection: sqlite3.Connection, response_id: str) -> None:
    connection.execute("DELETE FROM events WHERE response_id = ?", (response_id,))
    connection.execute(
        "UPDATE responses SET log = 'dropped', num_bytes = num_bytes - num_event_bytes, "
        "num_event_bytes = 0 WHERE id = ?",
        (response_id,),
    )


def _let_go(connection: sqlite3.Connection, directory: Path | None) -> None:
    connection.close()
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)

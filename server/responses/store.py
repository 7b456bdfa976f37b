"""Responses that can be asked for again: a bounded sqlite file, which several processes share."""

import shutil
import sqlite3
import tempfile
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

_BUSY_TIMEOUT_S = 10.0
RUNNING = ("queued", "in_progress")
"""States of a response that has not ended."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, maker TEXT NOT NULL, status TEXT NOT NULL,
    body BLOB NOT NULL, items BLOB NOT NULL, is_cancelled INTEGER NOT NULL DEFAULT 0,
    num_bytes INTEGER NOT NULL, last_use INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON responses (last_use, status, num_bytes, id);
"""
_NEXT_USE = "(SELECT COALESCE(MAX(last_use), 0) + 1 FROM responses)"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """A response as of its last change.

    Attributes:
        owner: stands for the key of the caller that made it (`Caller.tenant`).
        status: the response's own.
        body: the response, as JSON.
        items: what it answers, with all that came before, as a JSON list of input items.
    """

    id: str
    owner: str
    status: str
    body: bytes
    items: bytes

    @property
    def has_ended(self) -> bool:
        """Whether it stays as it is."""
        return self.status not in RUNNING


class ResponseStore:
    """Keeps responses; the least recently used go first, those that still run never.

    The file appears with the first use, in a directory that nobody else may read. Every method
    blocks for as long as the file does; any thread may call it.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        maker: str = "",
        max_responses: int,
        max_bytes: int,
    ) -> None:
        """Keep responses.

        Args:
            directory: another process's, which removes it; None for one of this store's own, which
                `close` removes, and the end of this process.
            maker: the process that keeps its responses here, as `running_of` is asked for it.
            max_responses: most that are kept.
            max_bytes: most bytes of bodies and items together.
        """
        self._directory = directory
        self._maker = maker
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
                "INSERT INTO responses (id, owner, maker, status, body, items, num_bytes, last_use)"
                f" VALUES (?, ?, ?, ?, ?, ?, ?, {_NEXT_USE})",
                (
                    *(response.id, response.owner, self._maker, response.status),
                    *(response.body, response.items, size),
                ),
            )
            self._evict(connection)

    def update(self, response_id: str, status: str, body: bytes) -> None:
        """Keep a response's next state, if it has not been deleted."""
        with self._lock, self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "UPDATE responses SET status = ?, body = ?, num_bytes = ? + LENGTH(items), "
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
                "RETURNING status, body, items",
                (response_id, owner),
            ).fetchone()
        if row is None:
            return None
        status, body, items = row
        return StoredResponse(id=response_id, owner=owner, status=status, body=body, items=items)

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

    def running_of(self, maker: str) -> list[StoredResponse]:
        """The responses of a process that have not ended."""
        with self._lock, self._open() as connection:
            rows = connection.execute(
                "SELECT id, owner, status, body, items FROM responses "
                "WHERE maker = ? AND status IN (?, ?)",
                (maker, *RUNNING),
            ).fetchall()
        names = ("id", "owner", "status", "body", "items")
        return [StoredResponse(**dict(zip(names, row, strict=True))) for row in rows]

    def is_cancelled(self, response_id: str) -> bool:
        """Whether somebody wants a response ended, or has deleted it."""
        with self._lock, self._open() as connection:
            row = connection.execute(
                "SELECT is_cancelled FROM responses WHERE id = ?", (response_id,)
            ).fetchone()
        return row is None or bool(row[0])

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
        connection = sqlite3.connect(
            self._directory / "responses.sqlite3",
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        self._end = weakref.finalize(self, _let_go, connection, self._directory if owned else None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # it does not outlive the server anyway
        connection.executescript(_SCHEMA)
        self._connection = connection
        return connection

    def _evict(self, connection: sqlite3.Connection) -> None:
        count, size = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(num_bytes), 0) FROM responses"
        ).fetchone()
        oldest = connection.execute(
            "SELECT id, num_bytes FROM responses WHERE status NOT IN (?, ?) ORDER BY last_use",
            RUNNING,
        )
        gone = []
        while count > self._max_responses or size > self._max_bytes:
            row = oldest.fetchone()
            if row is None:
                break
            gone.append((row[0],))
            count, size = count - 1, size - row[1]
        connection.executemany("DELETE FROM responses WHERE id = ?", gone)


def _let_go(connection: sqlite3.Connection, directory: Path | None) -> None:
    connection.close()
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)

"""The sqlite file of responses and their events."""

import sqlite3
from pathlib import Path

_BUSY_TIMEOUT_S = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, status TEXT NOT NULL, body BLOB NOT NULL,
    items BLOB NOT NULL, is_cancelled INTEGER NOT NULL DEFAULT 0, seen_s REAL NOT NULL,
    log TEXT, num_event_bytes INTEGER NOT NULL DEFAULT 0,
    num_bytes INTEGER NOT NULL, last_use INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON responses (last_use, status, seen_s, num_bytes, id);
CREATE INDEX IF NOT EXISTS with_events ON responses (last_use) WHERE num_event_bytes > 0;
CREATE TABLE IF NOT EXISTS events (
    response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    number INTEGER NOT NULL, frame BLOB NOT NULL, PRIMARY KEY (response_id, number)
) WITHOUT ROWID;
"""


def connect(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made if it is not there; any thread may use it.

    Raises:
        sqlite3.Error: it cannot be opened or made.
    """
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")  # it does not outlive the server anyway
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(_SCHEMA)
    return connection

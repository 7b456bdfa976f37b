"""Responses whose process has died while it made them."""

import msgspec

from leadline.server.responses.store import ResponseStore


def end_orphans(store: ResponseStore, maker: str) -> None:
    """Let the responses of a dead process fail, which would seem to be made for ever.

    Raises:
        sqlite3.Error: the store cannot be written.
    """
    for stored in store.running_of(maker):
        error = {"code": "server_error", "message": "the process that made this response has died"}
        body = msgspec.json.decode(stored.body) | {"status": "failed", "error": error}
        store.update(stored.id, "failed", msgspec.json.encode(body))

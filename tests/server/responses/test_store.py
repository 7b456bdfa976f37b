"""The store of responses: bounded, shared between processes, closed to other callers."""

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leadline.server.responses.orphans import end_orphans
from leadline.server.responses.store import ResponseStore, StoredResponse


def response(
    id_: str, owner: str = "a", status: str = "completed", size: int = 1
) -> StoredResponse:
    return StoredResponse(id=id_, owner=owner, status=status, body=b"x" * size, items=b"")


@pytest.fixture
def store() -> Iterator[ResponseStore]:
    store = ResponseStore(max_responses=3, max_bytes=100)
    yield store
    store.close()


def test_only_the_owner_has_it(store: ResponseStore) -> None:
    kept = response("r")
    store.put(kept)
    assert store.get("r", "a") == kept
    assert store.get("r", "b") is None
    assert not store.delete("r", "b")
    assert not store.request_cancel("r", "b")
    assert not store.is_cancelled("r")
    assert store.delete("r", "a")
    assert not store.delete("r", "a")
    assert store.get("r", "a") is None
    assert store.is_cancelled("r")


def test_the_least_recently_used_goes_first(store: ResponseStore) -> None:
    for name in "123":
        store.put(response(name))
    store.get("1", "a")
    store.put(response("4"))
    assert [name for name in "1234" if store.get(name, "a")] == ["1", "3", "4"]


def test_bytes_are_bounded(store: ResponseStore) -> None:
    store.put(response("1", size=50))
    store.put(response("2", size=60))
    assert store.get("1", "a") is None
    assert store.get("2", "a") is not None


def test_those_that_run_stay(store: ResponseStore) -> None:
    store.put(response("1", status="in_progress", size=90))
    store.put(response("2", size=20))
    assert store.get("1", "a") is not None
    assert store.get("2", "a") is None


def test_the_next_state(store: ResponseStore) -> None:
    store.put(response("1", status="in_progress", size=10))
    store.put(response("2", size=20))
    store.update("1", "completed", b"x" * 90)
    assert store.get("2", "a") is None
    assert store.get("1", "a") == response("1", size=90)
    store.delete("1", "a")
    store.update("1", "completed", b"")
    assert store.get("1", "a") is None


def test_another_process_finds_it_and_may_cancel(store: ResponseStore) -> None:
    store.put(response("r", status="in_progress"))
    other = ResponseStore(store.directory, max_responses=3, max_bytes=100)
    assert other.get("r", "a") == response("r", status="in_progress")
    assert other.request_cancel("r", "a")
    assert store.is_cancelled("r")
    other.close()
    assert store.get("r", "a") is not None  # the directory is not the other's to remove


def test_what_a_dead_process_made_fails() -> None:
    store = ResponseStore(max_responses=3, max_bytes=1000)
    dead = ResponseStore(store.directory, maker="1.1", max_responses=3, max_bytes=1000)
    dead.put(replace(response("runs", status="in_progress"), body=b'{"status":"in_progress"}'))
    dead.put(response("has_ended"))
    store.put(response("another's", status="in_progress"))
    end_orphans(store, "1.1")
    failed = store.get("runs", "a")
    assert failed is not None
    assert failed.status == "failed"
    body = json.loads(failed.body)
    assert body["status"] == "failed"
    assert body["error"]["code"] == "server_error"
    assert store.get("has_ended", "a") == response("has_ended")
    assert store.get("another's", "a") == response("another's", status="in_progress")
    assert store.running_of("1.1") == []
    dead.close()
    store.close()


def test_the_directory_is_private_and_goes(store: ResponseStore) -> None:
    directory: Path = store.directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    store.close()
    store.close()
    assert not directory.exists()

"""The store of responses: bounded, shared between processes, closed to other callers."""

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leadline.server.responses.records import LOST_S, StoredResponse
from leadline.server.responses.store import ResponseStore


def response(
    id_: str, owner: str = "a", status: str = "completed", size: int = 1, **more: Any
) -> StoredResponse:
    body = b"x" * size
    return StoredResponse(id=id_, owner=owner, status=status, body=body, items=b"", **more)


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
    assert store.unwanted(["r"]) == []
    assert store.delete("r", "a")
    assert not store.delete("r", "a")
    assert store.get("r", "a") is None
    assert store.unwanted(["r"]) == ["r"]


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
    store.put(response("s", status="queued"))
    assert store.unwanted(["r", "s"]) == ["r"]
    other.close()
    assert store.get("r", "a") is not None  # the directory is not the other's to remove


def test_the_directory_is_private_and_goes(store: ResponseStore) -> None:
    directory: Path = store.directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    store.close()
    store.close()
    assert not directory.exists()


def frames_of(store: ResponseStore, after: int = -1) -> list[tuple[int, bytes]]:
    page = store.events("r", after)
    assert page is not None
    return page.frames


def test_events_are_kept_in_order(store: ResponseStore) -> None:
    store.put(response("r", status="queued", log="open"))
    assert store.add_events("r", 0, [b"a", b"b"])
    other = ResponseStore(store.directory, max_responses=3, max_bytes=100)
    assert other.add_events("r", 2, [b"c"])
    assert frames_of(store) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert frames_of(other, 1) == [(2, b"c")]
    assert frames_of(other, 2) == []
    other.close_log("r")
    assert not store.add_events("r", 3, [b"d"])
    page = store.events("r", 2)
    assert page is not None
    assert (page.frames, page.log) == ([], "closed")
    assert store.delete("r", "a")
    assert store.events("r", -1) is None
    other.close()


def test_a_response_without_a_log(store: ResponseStore) -> None:
    store.put(response("r", status="queued"))
    assert not store.add_events("r", 0, [b"a"])
    assert store.events("r", -1) is None


def test_events_count_as_part_of_a_response_and_go_before_it(store: ResponseStore) -> None:
    store.put(response("1", size=40))
    store.put(response("r", status="queued", size=10, log="open"))
    assert store.add_events("r", 0, [b"x" * 45])
    assert store.add_events("r", 1, [b"x" * 10])
    assert store.get("1", "a") is None
    store.close_log("r")
    assert store.num_events("r") == 2
    store.update("r", "completed", b"x" * 46)
    kept = store.get("r", "a")
    assert kept is not None
    assert kept.log == "dropped"
    assert frames_of(store) == []
    store.put(response("2", size=60))
    assert store.get("r", "a") is None
    assert store.events("r", -1) is None


def test_too_many_events_are_dropped_and_nothing_else(store: ResponseStore) -> None:
    store.put(response("1", status="in_progress", size=40))
    store.put(response("r", status="in_progress", size=10, log="open"))
    assert store.add_events("r", 0, [b"x" * 50])
    assert not store.add_events("r", 1, [b"x"])
    page = store.events("r", -1)
    assert page is not None
    assert (page.frames, page.log) == ([], "dropped")
    assert not store.add_events("r", 2, [b"x"])
    assert store.get("1", "a") is not None
    store.update("r", "completed", b"x" * 60)
    assert store.get("r", "a") is not None  # the room is free again


def test_whose_process_is_gone_is_lost(
    store: ResponseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    for name in ("r", "s"):
        store.put(response(name, status="in_progress", log="open"))
    store.put(response("t"))
    monkeypatch.setattr(time, "monotonic", lambda: now + LOST_S + 1)
    assert store.unwanted(["s"]) == []
    found = [store.get(name, "a") for name in "rst"]
    assert [each is not None and each.is_lost for each in found] == [True, False, False]
    page = store.events("r", -1)
    assert page is not None
    assert page.is_lost
    store.get("r", "a")
    store.put(response("4"))
    store.put(response("5"))
    assert store.get("s", "a") is not None
    store.put(response("6"))
    assert store.get("r", "a") is None  # it goes like others

"""Pausing, resuming and aborting over HTTP."""

from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.control import PauseMode
from leadline.engine.errors import EngineAsleepError, EngineRestartingError, OrderRefusedError
from leadline.engine.request import ABORTED_BY_OPERATOR, FinishReason


@pytest.mark.parametrize(
    ("query", "mode"),
    [
        ("", PauseMode.ABORT),
        ("?mode=abort&clear_cache=true", PauseMode.ABORT),
        ("?mode=wait", PauseMode.WAIT),
        ("?wait_for_inflight_requests=True", PauseMode.WAIT),
        ("?mode=keep", PauseMode.KEEP),
    ],
)
def test_pause_and_resume(serve: Callable[..., Any], query: str, mode: PauseMode) -> None:
    service = serve(num_cached_pages=7)
    http = service.http
    assert http.get("/is_paused").json() == {"is_paused": False}
    answer = http.post(f"/pause{query}")
    assert (answer.status_code, answer.json()) == (200, {"status": "paused"})
    assert service.engine.orders == [("pause", mode)]
    assert service.engine.num_cached_pages == (0 if "clear_cache" in query else 7)
    assert http.get("/is_paused").json() == {"is_paused": True}
    ready, health = http.get("/readyz"), http.get("/health")
    assert (ready.status_code, health.status_code) == (503, 200)
    assert ready.json()["status"] == health.json()["status"] == "paused"
    assert ready.json()["error"]["code"] == "engine_paused"
    assert http.post("/resume").json() == {"status": "resumed"}
    assert http.get("/is_paused").json() == {"is_paused": False}
    assert http.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("mode=later", "mode"),
        ("mode=keep&wait_for_inflight_requests=true", "mode"),
        ("clear_cache=maybe", "clear_cache"),
    ],
)
def test_pauses_that_nobody_knows(service: Any, query: str, param: str) -> None:
    answer = service.http.post(f"/pause?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert service.engine.orders == []


def test_an_engine_that_restarts_is_not_paused(serve: Callable[..., Any]) -> None:
    service = serve(refusal=EngineRestartingError("it died"))
    answer = service.http.post("/pause")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_restarting"


@pytest.mark.parametrize("body", [{}, {"request_ids": None}, {"request_ids": []}])
def test_all_requests_are_aborted_if_none_is_named(service: Any, body: Any) -> None:
    assert service.post("/abort_requests", body).json() == {"request_ids": []}
    assert service.engine.orders == [("abort", None)]


def test_requests_are_aborted_by_name(service: Any) -> None:
    answer = service.post("/abort_requests", {"request_ids": ["chatcmpl-1", "mine"]})
    assert answer.json() == {"request_ids": ["chatcmpl-1", "mine"]}
    assert service.engine.orders == [("abort", ["chatcmpl-1", "mine"])]
    refused = service.post("/abort_requests", {"request_ids": "chatcmpl-1"})
    assert refused.status_code == 400
    assert "request_ids" in refused.json()["error"]["param"]


def test_requests_have_the_names_that_their_answers_show(service: Any) -> None:
    given = service.chat(n=2)
    assert given.status_code == 200
    own = service.post(
        "/v1/completions",
        {"model": "tiny", "prompt": "x"},
        headers={"x-request-id": "my-id <1>", "content-type": "application/json"},
    )
    names = [(answer.json()["id"], answer.headers["x-request-id"]) for answer in (given, own)]
    assert names[1][1] == "my-id1"
    assert [r.names for r in service.engine.requests] == [names[0], names[0], names[1]]


def test_who_is_aborted_is_told_not_to_come_back(serve: Callable[..., Any]) -> None:
    service = serve(failure=FinishReason.ABORT, error=ABORTED_BY_OPERATOR)
    answer = service.chat(deadline_s=100)
    assert answer.status_code == 503
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["code"] == "aborted"


@pytest.mark.parametrize(("query", "level"), [("", 1), ("?level=1", 1), ("?level=2&mode=wait", 2)])
def test_sleep_and_wake_up(service: Any, query: str, level: int) -> None:
    http = service.http
    assert http.get("/is_sleeping").json() == {"is_sleeping": False, "level": 0}
    answer = http.post(f"/sleep{query}")
    assert answer.json() == {"status": "asleep", "freed_bytes": 1000 * level}
    assert http.get("/is_sleeping").json() == {"is_sleeping": True, "level": level}
    ready, health = http.get("/readyz"), http.get("/health")
    assert (ready.status_code, health.status_code) == (503, 200)
    assert ready.json()["error"]["code"] == "engine_asleep"
    assert http.post("/wake_up").json()["status"] == "awake"
    assert http.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("sleep?level=0", "level"),
        ("sleep?level=3", "level"),
        ("sleep?mode=keep", "mode"),
        ("wake_up?tags=weights", "tags"),
    ],
)
def test_sleeps_that_nobody_knows(service: Any, path: str, param: str) -> None:
    answer = service.http.post(f"/{path}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert service.engine.orders == []


def test_requests_to_an_engine_that_sleeps(serve: Callable[..., Any]) -> None:
    answer = serve(refusal=EngineAsleepError("it sleeps")).chat()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_asleep"
    assert int(answer.headers["retry-after"]) > 0


def test_an_order_that_is_not_possible(serve: Callable[..., Any]) -> None:
    answer = serve(refusal=OrderRefusedError("the weights are gone")).http.post("/wake_up")
    assert answer.status_code == 409
    assert "the weights are gone" in answer.json()["error"]["message"]

"""The small routes, request ids and draining."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.messages import EngineStats


def test_models(service: Any) -> None:
    body = service.http.get("/v1/models").json()
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["tiny", "org/alias"]
    assert all(
        set(model) >= {"id", "object", "created", "owned_by", "max_model_len"}
        for model in body["data"]
    )
    assert [model.id for model in service.client.models.list()] == ["tiny", "org/alias"]
    assert service.client.models.retrieve("org/alias").id == "org/alias"


def test_an_alias_answers_under_its_own_name(service: Any) -> None:
    answer = service.client.completions.create(model="org/alias", prompt="x")
    assert answer.model == "org/alias"


def test_health_follows_the_engine(service: Any) -> None:
    assert service.http.get("/health").status_code == 200
    service.engine.alive = False
    response = service.http.get("/health")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_dead"


def test_version(service: Any) -> None:
    assert service.http.get("/version").json()["version"]


def test_metrics_follow_the_requests(serve: Callable[..., Any]) -> None:
    service = serve(stats=EngineStats(num_running=2, generation_tokens=30))
    service.chat()
    service.chat(max_tokens=2)
    response = service.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    for prefix in ("leadline", "vllm"):
        assert f'{prefix}:num_requests_running{{model_name="tiny"}} 2.0' in lines
        assert f'{prefix}:generation_tokens_total{{model_name="tiny"}} 30.0' in lines
        for reason in ("stop", "length"):
            labels = f'finished_reason="{reason}",model_name="tiny"'
            assert f"{prefix}:request_success_total{{{labels}}} 1.0" in lines
        assert f'{prefix}:time_to_first_token_seconds_count{{model_name="tiny"}} 2.0' in lines
    assert service.http.head("/metrics").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/health"), ("GET", "/nowhere"), ("POST", "/v1/completions"), ("PUT", "/health")],
)
def test_every_response_has_an_id(service: Any, method: str, path: str) -> None:
    made = service.http.request(method, path).headers["x-request-id"]
    assert made
    headers = {"x-request-id": "my-id <1>"}
    assert service.http.request(method, path, headers=headers).headers["x-request-id"] == "my-id1"
    assert service.http.request(method, path).headers["x-request-id"] != made


def test_draining_refuses_new_requests_and_finishes_the_running(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "abcdefghij", step_s=0.05)
    texts = []
    running = threading.Thread(target=lambda: texts.append(service.chat(stream=True).text))
    running.start()
    while service.state.in_flight.count == 0:
        time.sleep(0.005)
    service.state.draining = True
    refused = service.complete()
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "server_draining"
    assert int(refused.headers["retry-after"]) >= 1
    assert service.http.get("/health").status_code == 200
    running.join(10)
    assert texts[0].endswith("data: [DONE]\n\n")
    assert len(service.engine.requests) == 1


def test_the_connection_is_kept_after_errors(service: Any) -> None:
    for _ in range(3):
        assert service.post("/v1/completions", b"{").status_code == 400
        assert service.http.get("/nowhere").status_code == 404
        assert service.complete().status_code == 200


def test_server_info(serve: Callable[..., Any]) -> None:
    """What a real start fills in is tested with the whole server."""
    from leadline.server.server_info import ServerInfo

    info = ServerInfo(max_model_len=200, engine={"kernels": "reference (9)"})
    body = serve(state={"info": info}).http.get("/server_info").json()
    assert body["engine"] == {"kernels": "reference (9)"}
    assert body["max_model_len"] == 200
    assert body["version"]

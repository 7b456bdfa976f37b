"""What is asked of one worker may be asked of any: two workers, one engine, real sockets."""

import re
import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from benchmarks.processes import tree_of

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
KEY = {"x-api-key": "sk-secret-1"}


def metrics_of(client: httpx.Client) -> dict[str, float]:
    """What a worker says, by name and labels."""
    text = client.get("/metrics", headers=KEY).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def sum_of(metrics: dict[str, float], name: str, *labels: str) -> float:
    return sum(
        value
        for key, value in metrics.items()
        if key.partition("{")[0] == name and all(label in key for label in labels)
    )


def test_connections_go_round(server: Any) -> None:
    with server.clients() as clients:
        answered = [
            client.get("/readyz", headers={"x-request-id": f"round-{index}"})
            for index, client in enumerate(clients)
        ]
    assert [response.headers["x-request-id"] for response in answered] == ["round-0", "round-1"]
    workers = [server.worker_of(f"round-{index}") for index in (0, 1)]
    assert sorted(workers) == sorted(server.workers)


def test_streams_of_both_workers(server: Any) -> None:
    """Eight at a time, read by the official client."""
    texts: list[str] = []

    def read() -> None:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
            chunks = client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "Hi"}],
                max_tokens=40,
                seed=1,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            texts.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks))

    before = server.errors
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8
    assert len(set(texts)) == 1
    assert texts[0]
    posts = re.compile(r"POST /v1/chat/completions.* worker=(\d)")
    server.wait_until(lambda: len(posts.findall(server.errors[len(before) :])) == 8, "eight lines")
    assert sorted(posts.findall(server.errors[len(before) :])) == ["1"] * 4 + ["2"] * 4


def test_metrics_are_those_of_all(server: Any) -> None:
    with server.clients() as clients:
        before = metrics_of(clients[0])
        for client in clients:
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        first, second = [metrics_of(client) for client in clients]
    route = 'handler="/v1/chat/completions"'
    for prefix in ("leadline", "vllm"):
        for name, labels, more in (
            (f"{prefix}:http_requests_total", (route,), 2),
            (f"{prefix}:request_generation_tokens_sum", (), 6),
            (f"{prefix}:request_generation_tokens_count", (), 2),
            (f"{prefix}:generation_tokens_total", (), 6),
            (f"{prefix}:request_success_total", ('finished_reason="length"',), 2),
        ):
            counts = [sum_of(metrics, name, *labels) for metrics in (before, first, second)]
            assert counts == [counts[0], counts[0] + more, counts[0] + more], name
    assert not any("pid=" in name for name in first)


def test_latencies_of_a_stream_are_told_by_others_while_it_runs(server: Any) -> None:
    name = "leadline:inter_token_latency_seconds_count"
    body = CHAT | {"max_tokens": 390, "ignore_eos": True, "stream": True}
    with server.clients() as (one, other):
        before = sum_of(metrics_of(other), name)
        with one.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.iter_lines()  # which would end the stream if it were collected
            next(lines)
            server.wait_until(lambda: sum_of(metrics_of(other), name) > before, "the latencies")


def test_the_dashboard_counts_all(server: Any) -> None:
    with server.clients() as clients:
        for client in clients:
            client.post("/v1/chat/completions", json=CHAT)
        first, second = [client.get("/dashboard.json").json() for client in clients]
        metrics = metrics_of(clients[0])
    assert first["latency"]["e2e"] == second["latency"]["e2e"]
    count = sum_of(metrics, "leadline:e2e_request_latency_seconds_count")
    assert first["latency"]["e2e"]["counts"][-1] == count


@pytest.mark.parametrize("path", ["/v1/models", "/server_info", "/version", "/openapi.json", "/"])
def test_all_say_the_same(server: Any, path: str) -> None:
    with server.clients() as clients:
        first, second = [client.get(path) for client in clients]
    assert first.status_code == 200
    assert first.content == second.content


def test_the_number_of_workers_is_told(server: Any) -> None:
    with server.client() as client:
        assert client.get("/server_info").json()["api_workers"] == 2
    assert "\nAPI workers  " in server.head


def test_seeds_are_drawn_apart(server: Any) -> None:
    body = {"model": "m", "input": "Hi", "max_output_tokens": 1, "store": False}
    with server.clients() as clients:
        seeds = [client.post("/v1/responses", json=body).json()["seed"] for client in clients]
    assert seeds[0] != seeds[1]


def test_a_response_is_known_to_all(server: Any) -> None:
    body = {"model": "m", "input": "Hi", "max_output_tokens": 3}
    with server.clients() as (one, other):
        made = one.post("/v1/responses", json=body).json()
        path = f"/v1/responses/{made['id']}"
        assert other.get(path).json() == made
        more = body | {"previous_response_id": made["id"]}
        assert other.post("/v1/responses", json=more).status_code == 200
        assert other.delete(path).status_code == 200
        assert one.get(path).status_code == 404


def test_a_response_is_cancelled_from_elsewhere(server: Any) -> None:
    body = {"model": "m", "input": "Hi", "max_output_tokens": 380, "background": True}
    with server.clients() as (one, other):
        made = one.post("/v1/responses", json=body).json()
        path = f"/v1/responses/{made['id']}"
        assert other.get(path).json()["status"] in ("queued", "in_progress")
        cancelled = other.post(f"{path}/cancel").json()
        assert cancelled["status"] == "cancelled"
        assert one.get(path).json() == cancelled


def test_a_response_is_deleted_from_elsewhere(server: Any) -> None:
    body = {"model": "m", "input": "Hi", "max_output_tokens": 380, "background": True}
    with server.clients() as (one, other):
        made = one.post("/v1/responses", json=body).json()
        assert other.delete(f"/v1/responses/{made['id']}").status_code == 200
        server.wait_until(
            lambda: sum_of(metrics_of(one), "leadline:num_requests_running") == 0,
            "the end of what nobody wants",
        )


def test_an_operator_reaches_all(server: Any) -> None:
    body = CHAT | {"max_tokens": 390, "stream": True}
    headers = {"x-request-id": "to-abort"}
    with server.clients() as (one, other):
        with one.stream("POST", "/v1/chat/completions", json=body, headers=headers) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("data: ")
            aborted = other.post("/abort_requests", json={"request_ids": ["to-abort"]}).json()
            assert len(aborted["request_ids"]) == 1
            with pytest.raises(httpx.RemoteProtocolError):  # cut, not ended
                list(lines)
        assert other.post("/pause").status_code == 200
        server.wait_until(lambda: one.get("/is_paused").json()["is_paused"], "the pause")
        assert one.get("/readyz").json()["status"] == "paused"
        assert one.post("/resume").status_code == 200
        server.wait_until(lambda: other.get("/readyz").status_code == 200, "the end of the pause")


def test_keys_are_shown_to_nobody(server: Any) -> None:
    with server.client() as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=KEY).status_code == 200
    for pid in tree_of(server.process.pid)[1:]:
        for name in ("cmdline", "environ"):
            assert b"sk-secret" not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert "sk-secret" not in server.head + server.errors

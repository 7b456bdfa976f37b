"""More than the cache has room for: requests lose their pages, come back, and say the same."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

WAIT_S = 120.0  # generous: a starved machine is no failure
NUM_REQUESTS, NUM_TOKENS, KV_TOKENS = 6, 110, 256


@pytest.fixture(scope="module")
def small(
    start_service: Any, model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A server whose cache holds two such requests, and a part of a third."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    with start_service(log, model, "--kv-tokens", str(KV_TOKENS), "--page-size", "16") as process:
        yield process


def complete(url: str, index: int, **fields: Any) -> httpx.Response:
    body = {
        "model": "demo",
        "prompt": f"{index} times",
        "max_tokens": NUM_TOKENS,
        "ignore_eos": True,
        "temperature": 0,
    }
    return httpx.post(f"{url}/v1/completions", json=body | fields, timeout=WAIT_S)


def counter(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=WAIT_S).text
    lines = [line for line in text.splitlines() if line.startswith(f"leadline:{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_preempted_requests_say_what_they_say_alone(small: Any) -> None:
    """Row 52."""
    alone = [complete(small.url, index).json()["choices"][0] for index in range(3)]
    assert counter(small.url, "num_preemptions_total") == 0
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        answers = list(pool.map(lambda i: complete(small.url, i).json(), range(NUM_REQUESTS)))
    assert [answer["choices"][0] for answer in answers[:3]] == alone
    for answer in answers:
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == NUM_TOKENS
    num_preemptions = counter(small.url, "num_preemptions_total")
    # The first in order never loses its pages, so that each wait for room ends a request.
    assert 0 < num_preemptions <= NUM_REQUESTS**2
    assert counter(small.url, "kv_cache_usage_perc") == 0


@pytest.mark.parametrize("fields", [{"prompt": [5] * 600}, {"max_tokens": 600}])
def test_what_can_never_fit_is_refused_at_once(small: Any, fields: Any) -> None:
    """Row 53."""
    response = complete(small.url, 0, **fields)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert f"maximum context length is {KV_TOKENS} tokens" in error["message"]


def test_what_just_fits_is_answered(small: Any) -> None:
    response = complete(small.url, 0, prompt=[5] * (KV_TOKENS - 4), max_tokens=4)
    assert json.loads(response.text)["usage"]["completion_tokens"] == 4

"""A model that computes NaN for some requests: they fail alone, and nothing of them stays."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from leadline.loader.hub import resolve_model

WAIT_S = 120.0  # generous: a starved machine is no failure
BAD_ID = 4000
GOOD = list(range(300, 340))


@pytest.fixture(scope="module")
def spoilt(start_service: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of a model that has no finite embedding for one token."""
    path: Path = tmp_path_factory.mktemp("model") / "spoilt"
    shutil.copytree(resolve_model("leadline-demo"), path)
    tensors = load_file(path / "model.safetensors")
    tensors["model.embed_tokens.weight"][BAD_ID] = torch.nan
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    log = tmp_path_factory.mktemp("log") / "stderr"
    # Few pages: those of requests that failed are soon used again.
    with start_service(log, str(path), "--kv-tokens", "512", "--page-size", "16") as process:
        yield process


def complete(url: str, prompt: list[int], **fields: Any) -> httpx.Response:
    body = {
        "model": "demo",
        "prompt": prompt,
        "max_tokens": 24,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": 1,
    }
    return httpx.post(f"{url}/v1/completions", json=body | fields, timeout=WAIT_S)


def counter(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=WAIT_S).text
    (line,) = [line for line in text.splitlines() if line.startswith(f"leadline:{name}{{")]
    return float(line.rpartition(" ")[2])


def test_a_request_without_finite_logits_fails_alone(spoilt: Any) -> None:
    """Row 57: its batch-mates say the same bit for bit, and its pages harm nobody."""
    prompts = [[*GOOD, index] for index in range(300, 304)]
    bad = [*GOOD[:20], BAD_ID, *GOOD[20:]]
    alone = [complete(spoilt.url, prompt).json()["choices"] for prompt in prompts]
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            failed = [pool.submit(complete, spoilt.url, [*bad, index]) for index in range(300, 304)]
            good = [pool.submit(complete, spoilt.url, prompt) for prompt in prompts]
        for future in failed:
            assert future.result().status_code == 500
            assert "NaN" in future.result().json()["error"]["message"]
        assert [future.result().json()["choices"] for future in good] == alone
    assert counter(spoilt.url, "corrupted_requests_total") == 8
    assert counter(spoilt.url, "kv_cache_usage_perc") == 0
    assert httpx.get(f"{spoilt.url}/health").json()["status"] == "ok"
    # The beginning that a good and a bad prompt share is no worse for the bad one.
    assert complete(spoilt.url, prompts[0]).json()["choices"] == alone[0]


def test_a_failure_within_a_stream(spoilt: Any) -> None:
    body = {"model": "demo", "prompt": [BAD_ID], "stream": True}
    response = httpx.post(f"{spoilt.url}/v1/completions", json=body, timeout=WAIT_S)
    assert response.status_code == 500, "nothing has been said yet"


def test_a_model_that_is_spoilt_for_all_is_not_healthy(spoilt: Any) -> None:
    """Row 58: until a request succeeds."""
    for _ in range(16):
        assert complete(spoilt.url, [BAD_ID], max_tokens=1).status_code == 500
    response = httpx.get(f"{spoilt.url}/health", timeout=WAIT_S)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_corrupt"
    assert httpx.get(f"{spoilt.url}/readyz", timeout=WAIT_S).status_code == 503
    assert complete(spoilt.url, GOOD).status_code == 200
    assert httpx.get(f"{spoilt.url}/health", timeout=WAIT_S).status_code == 200

"""What a real server tells of itself: the engine's times of requests, and what it has loaded."""

from typing import Any

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

MESSAGES: Any = [{"role": "user", "content": "Hello!"}]


def samples(http: httpx.Client) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            if set(sample.labels) == {"model_name"}:
                found[sample.name] = sample.value
    return found


def test_the_engine_s_times_arrive(client: openai.OpenAI, http: httpx.Client) -> None:
    before = samples(http)
    answer = client.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=4, n=2)
    after = samples(http)
    assert answer.usage is not None

    def risen(name: str) -> float:
        assert after[f"vllm:{name}"] == after[f"leadline:{name}"]
        return after[f"leadline:{name}"] - before[f"leadline:{name}"]

    for name in ("queue", "prefill", "decode", "inference"):
        assert risen(f"request_{name}_time_seconds_count") == 2, name
    assert risen("request_inference_time_seconds_sum") > 0
    assert risen("request_generation_tokens_sum") == answer.usage.completion_tokens
    assert risen("request_params_n_sum") == 2
    assert risen("generation_tokens_total") >= answer.usage.completion_tokens


def test_what_was_loaded_is_told(http: httpx.Client) -> None:
    info = http.get("/server_info").json()
    assert info["models"] == ["demo"]
    assert "GB/s" in info["engine"]["weights"]
    assert "reference (" in info["engine"]["kernels"]
    assert info["config"]["num_threads"] == {"value": "1", "reason": "as given"}
    parts_s = info["start_up_s"]
    assert {"imports", "engine process", "reading weights"} <= set(parts_s)
    assert all(part_s >= 0 for part_s in parts_s.values())
    pages = int(info["engine"]["latent cache"].partition(" ")[0])
    for family in text_string_to_metric_families(http.get("/metrics").text):
        if family.name == "vllm:cache_config_info":
            [sample] = family.samples
            assert int(sample.labels["num_gpu_blocks"]) == pages
            assert int(sample.labels["kv_cache_size_tokens"]) == 64 * pages
            return
    raise AssertionError("no cache_config_info")

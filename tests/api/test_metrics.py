"""What `/metrics` says after requests, read by Prometheus's own parser and linter."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from leadline.engine.messages import EngineStats
from leadline.engine.request import RequestTiming
from leadline.loader.chat_template import ChatTemplate
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, Mark

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
CACHE_INFO = {
    "block_size": "64",
    "num_gpu_blocks": "8",
    "num_cpu_blocks": "0",
    "kv_cache_size_tokens": "512",
    "cache_dtype": "bfloat16",
    "enable_prefix_caching": "True",
}
# Prometheus keeps colons for rules, but vLLM's names have them; one of them ends like a counter's.
KNOWN_LINT = re.compile(
    r"\S+ metric names should not contain ':'"
    r"|\S+:iteration_tokens_total non-counter metrics should not have \"_total\" suffix"
)
ODD_METHODS = ("PROPFIND", "LOCK", "MKCOL", "SEARCH")  # others the HTTP parser does not let in
Sample = tuple[str, frozenset[tuple[str, str]]]


def shown(service: Any) -> dict[Sample, float]:
    response = service.http.get("/metrics")
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(response.text):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "model_name"}
            assert sample.labels["model_name"] == "tiny"
            key = (sample.name, frozenset(labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(samples: dict[Sample, float], name: str, **labels: str) -> float:
    found = samples[name, frozenset(labels.items())]
    assert found == samples[f"vllm:{name.partition(':')[2]}", frozenset(labels.items())]
    return found


@pytest.fixture
def observed(serve: Callable[..., Any]) -> Any:
    timing = RequestTiming(queue_s=0.25, prefill_s=0.5, decode_s=1.0, num_preemptions=2)
    return serve(
        timing=timing,
        state={"cache_info": CACHE_INFO},
        stats=EngineStats(
            num_drafts=1,
            num_accepted_per_pos=[1],
            admission_rejections={"max_queued_requests": 1},
        ),
    )


def test_a_request_is_told_of_with_its_choices(observed: Any) -> None:
    prompt_tokens = observed.chat(n=3, max_tokens=5).json()["usage"]["prompt_tokens"]
    samples = shown(observed)
    assert value(samples, "leadline:request_queue_time_seconds_sum") == 0.75
    assert value(samples, "leadline:request_prefill_time_seconds_sum") == 1.5
    assert value(samples, "leadline:request_num_preemptions_sum") == 6
    assert value(samples, "leadline:request_prompt_tokens_sum") == 3 * prompt_tokens
    assert value(samples, "leadline:request_generation_tokens_sum") == 15
    assert value(samples, "leadline:request_generation_tokens_bucket", le="5.0") == 3
    assert value(samples, "leadline:inter_token_latency_seconds_count") == 12
    assert value(samples, "leadline:request_time_per_output_token_seconds_count") == 3
    assert value(samples, "leadline:request_params_n_sum") == 3
    assert value(samples, "leadline:request_params_max_tokens_sum") == 5
    assert value(samples, "leadline:request_max_num_generation_tokens_sum") == 5
    assert value(samples, "leadline:request_max_num_generation_tokens_count") == 1


def test_tokens_after_a_stop_string_are_not_counted(serve: Callable[..., Any]) -> None:
    service = serve(chunk=13)
    answer = service.chat(stop=["lo"]).json()
    samples = shown(service)
    counted = value(samples, "leadline:request_generation_tokens_sum")
    assert counted == answer["usage"]["completion_tokens"] == 5


def test_a_request_that_the_engine_refuses_has_no_choices(serve: Callable[..., Any]) -> None:
    from leadline.engine.errors import QueueFullError

    service = serve(refusal=QueueFullError("full", retry_after_s=1.0))
    assert service.chat().status_code in (429, 503)
    samples = shown(service)
    assert value(samples, "leadline:request_generation_tokens_sum") == 0
    assert value(samples, "leadline:request_success_total", finished_reason="error") == 1


def test_http_requests_are_counted_by_route(observed: Any) -> None:
    observed.chat()
    observed.chat(stream=True)
    observed.chat(temperature=-1)
    observed.http.get("/v1/models/org/alias")
    observed.http.get("/v1/models/no-such-model")
    for number, method in enumerate(ODD_METHODS):
        observed.http.get(f"/no/such/path/{number}")
        observed.http.request(method, "/v1/models")
    samples = shown(observed)
    name, chat = "leadline:http_requests_total", "/v1/chat/completions"
    assert value(samples, name, handler=chat, method="POST", status="2xx") == 2
    assert value(samples, name, handler=chat, method="POST", status="4xx") == 1
    model = "/v1/models/{name:path}"
    assert value(samples, name, handler=model, method="GET", status="2xx") == 1
    assert value(samples, name, handler=model, method="GET", status="4xx") == 1
    assert value(samples, name, handler="other", method="GET", status="4xx") == 4
    assert value(samples, name, handler="/v1/models", method="other", status="4xx") == 4


def test_paths_and_methods_do_not_multiply_series(observed: Any) -> None:
    def num_series() -> int:
        return len(shown(observed))

    observed.http.get("/nowhere")
    observed.http.request("LOCK", "/nowhere")
    num_series()  # counts itself
    before = num_series()
    for number, method in enumerate(ODD_METHODS):
        observed.http.get(f"/nowhere/{number}?{number}")
        observed.http.request(method, f"/{number}")
    assert num_series() == before


def test_the_documents_list_every_metric(observed: Any) -> None:
    observed.chat()
    rows = table(observed)
    assert [line for line in DOCS.read_text().splitlines() if line.startswith("| `")] == rows


def test_calls_are_counted_where_they_are_read(
    serve: Callable[..., Any], tokenizer_of: Callable[..., Any]
) -> None:
    tokenizer = tokenizer_of(*DEEPSEEK_TEXTS.values())
    call = f"{DEEPSEEK_TEXTS[Mark.CALLS_BEGIN]}{DEEPSEEK_TEXTS[Mark.CALL_BEGIN]}f"
    call += f"{DEEPSEEK_TEXTS[Mark.NAME_END]}{{}}{DEEPSEEK_TEXTS[Mark.CALL_END]}"
    says = iter([call, "No.", "No tools."])
    template = ChatTemplate("{{ tools }}{{ messages[0].content }}", {})
    state = {"tokenizer": tokenizer, "template": template, "max_model_len": 5000}
    service = serve(text=lambda request: next(says), tokenizer=tokenizer, state=state)
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert service.chat(tools=tools).json()["choices"][0]["finish_reason"] == "tool_calls"
    service.chat(tools=tools)
    service.chat()
    samples, name = shown(service), "leadline:tool_call_parser_invocations_total"
    assert value(samples, name, outcome="tool_call") == 1
    assert value(samples, name, outcome="no_tool_call") == 1


def table(service: Any) -> list[str]:
    """Every metric under its own name, as docs/metrics.md has them."""
    rows = []
    for family in text_string_to_metric_families(service.http.get("/metrics").text):
        name = family.name.removeprefix("leadline:")
        if name == family.name:
            continue
        labels = sorted({label for sample in family.samples for label in sample.labels})
        shown_labels = [f"`{label}`" for label in labels if label not in ("model_name", "le")]
        name += "_total" * (family.type == "counter")
        rows.append(
            f"| `{name}` | {family.type} | {', '.join(shown_labels)} | {family.documentation} |"
        )
    return sorted(rows)


def promtool() -> str:
    found = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (nor named by PROMTOOL)")
    return found


def test_promtool_finds_nothing_new(observed: Any) -> None:
    tool = promtool()
    observed.chat()
    text: httpx.Response = observed.http.get("/metrics")
    result = subprocess.run(
        [tool, "check", "metrics"], input=text.text, capture_output=True, text=True, check=False
    )
    findings = (result.stdout + result.stderr).splitlines()
    assert [line for line in findings if not KNOWN_LINT.fullmatch(line)] == []
    assert result.returncode in (0, 3), "3 is what lint findings give"

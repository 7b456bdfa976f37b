"""Programs that put load on a server and measure it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.clients
CLIENTS = ("vllm-bench",)
NUM_REQUESTS, OUTPUT_TOKENS = 6, 4
PROMTOOL_COMPLAINS, IN_NAMES_OF_VLLM = 3, "metric names should not contain ':'"


def test_case(use: Any, client: str, case: str) -> None:
    use(client, case)


def test_guidellm(
    environment: Callable[[str], Path], run: Any, servers: Any, tokenizer: Path, tmp_path: Path
) -> None:
    run(
        *(environment("guidellm") / "bin" / "guidellm", "run"),
        *("--backend", f"kind=openai_http,target={servers['model']},model=demo"),
        *("--profile", "kind=concurrent,streams=2"),
        *("--constraint", f"kind=max_requests,count={NUM_REQUESTS}"),
        *("--tokenizer", f"kind=hf_auto,model={tokenizer}"),
        *("--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={OUTPUT_TOKENS}"),
        cwd=tmp_path,
    )
    (benchmark,) = json.loads((tmp_path / "benchmarks.json").read_text())["benchmarks"]
    requests = benchmark["requests"]
    assert len(requests["successful"]) == NUM_REQUESTS
    assert requests["errored"] == requests["incomplete"] == []
    for request in requests["successful"]:
        assert request["output_metrics"]["text_tokens"] == OUTPUT_TOKENS
        assert request["time_to_first_token_ms"] > 0


def test_aiperf(
    environment: Callable[[str], Path], run: Any, servers: Any, tokenizer: Path, tmp_path: Path
) -> None:
    run(
        *(environment("aiperf") / "bin" / "aiperf", "profile", "--model", "demo"),
        *("--url", servers["model"], "--endpoint-type", "chat", "--streaming"),
        *("--tokenizer", tokenizer, "--concurrency", "2", "--ui", "none"),
        *("--request-count", str(NUM_REQUESTS), "--isl", "16", "--osl", str(OUTPUT_TOKENS)),
        cwd=tmp_path,
    )
    (path,) = tmp_path.rglob("profile_export_aiperf.json")
    report = json.loads(path.read_text())
    assert report["request_count"]["avg"] == NUM_REQUESTS
    assert not report.get("error_summary")
    assert report["time_to_first_token"]["avg"] > 0
    (path,) = tmp_path.rglob("server_metrics_export.json")
    assert "leadline:" in path.read_text()


def test_promtool(run: Any, servers: dict[str, str], tmp_path: Path) -> None:
    """All is read; what is complained of is in names that dashboards of vLLM's know."""
    promtool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool here: install prometheus, or set PROMTOOL to its path")
    exposition = tmp_path / "metrics"
    exposition.write_text(httpx.get(f"{servers['model']}/metrics", trust_env=False).text)
    assert "leadline:" in exposition.read_text()
    done = run(promtool, "check", "metrics", stdin=exposition, allowed=(0, PROMTOOL_COMPLAINS))
    complaints = [line.split(" ", 1) for line in (done.stdout + done.stderr).splitlines()]
    others = {name: text for name, text in complaints if text != IN_NAMES_OF_VLLM}
    assert set(others) == {"leadline:iteration_tokens_total", "vllm:iteration_tokens_total"}
    assert set(others.values()) == {'non-counter metrics should not have "_total" suffix'}

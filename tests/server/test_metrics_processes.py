"""Several processes that answer requests: any of them tells of all."""

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

_SCRIPT = """
import sys
from leadline.engine.messages import EngineStats
from leadline.engine.request import FinishReason
from leadline.server.metrics import Metrics
from leadline.server.request_record import ChoiceRecord

metrics = Metrics("m", lambda: EngineStats(num_running=2), max_model_len=200)
for num_tokens in map(int, sys.argv[1:]):
    choice = ChoiceRecord(
        num_prompt_tokens=7, num_tokens=num_tokens, end_s=103.0, reason=FinishReason.STOP
    )
    metrics.requests.on_choice_end(choice, 100.0)
    metrics.requests.count_http("/v1/models", "GET", 200)
sys.stdout.buffer.write(metrics.render())
"""


def shown(folder: Path, *num_tokens: int) -> dict[str, float]:
    """What a process says after it has answered requests."""
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *map(str, num_tokens)],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {}
    for family in text_string_to_metric_families(result.stdout):
        assert family.documentation, family.name
        for sample in family.samples:
            assert "pid" not in sample.labels
            labels = [f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "model_name"]
            key = f"{sample.name}{{{','.join(labels)}}}"
            assert key not in found, key
            found[key] = sample.value
    return found


def test_a_process_tells_of_all(tmp_path: Path) -> None:
    alone = shown(tmp_path, 4)
    both = shown(tmp_path, 5, 6)
    for prefix in ("leadline", "vllm"):
        tokens = f"{prefix}:request_generation_tokens"
        assert alone[f"{tokens}_sum{{}}"] == 4
        assert both[f"{tokens}_sum{{}}"] == 15
        assert both[f"{tokens}_count{{}}"] == 3
        assert both[f"{tokens}_bucket{{le=5.0}}"] == 2
        assert both[f"{tokens}_bucket{{le=+Inf}}"] == 3
        assert both[f"{prefix}:request_success_total{{finished_reason=stop}}"] == 3
        assert both[f"{prefix}:request_success_total{{finished_reason=length}}"] == 0
        http = f"{prefix}:http_requests_total{{handler=/v1/models,method=GET,status=2xx}}"
        assert both[http] == 3
        assert both[f"{prefix}:num_requests_running{{}}"] == 2, "the engine speaks for itself"

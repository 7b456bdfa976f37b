"""`leadline bench` as a user starts it, against `leadline serve` with a model."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from leadline.server.bench.drafts import measure_drafts, parse_counts


def test_serve(service: Any, http: httpx.Client, cli: Any, tmp_path: Path) -> None:
    """What the answers tell of drafts is what the server has counted meanwhile."""
    before = parse_counts(http.get("/metrics").text)
    result_flags = ("--save-result", "--result-dir", str(tmp_path), "--result-filename", "r.json")
    flags = ("--num-prompts", "6", "--output-len", "12", "--seed", "3", *result_flags)
    done = cli("bench", "serve", "--quick", "--base-url", service.url, *flags)
    after = parse_counts(http.get("/metrics").text)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Successful requests:                     6\n" in done.stdout
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["failed"] == 0
    assert result["model_id"] == "demo"
    assert 0 < result["mean_ttft_ms"] <= result["mean_e2el_ms"]
    measures = measure_drafts([], before, after)
    assert measures is not None
    assert result["spec_decode_num_drafts"] == measures.counts.num_drafts
    assert result["spec_decode_draft_tokens"] == measures.counts.num_draft_tokens
    by_position = result["spec_decode_per_position_acceptance_rates"]
    for found, expected in zip(by_position, measures.acceptance_by_position, strict=False):
        assert found == pytest.approx(expected)


def test_startup(model: str, cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "startup.json"
    flags = ("--num-runs", "1", "--output-json", str(path), "--", model, "--num-threads", "1")
    done = cli("bench", "startup", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(path.read_text())
    (listens_s,), (answer_s,) = result["listens_s"], result["answer_s"]
    assert 0 < listens_s < answer_s
    assert result["mean_answer_s"] == result["max_answer_s"] == answer_s
    assert f"run 1: listens after {listens_s:.2f} s" in done.stdout


def test_startup_of_what_does_not_start(cli: Any) -> None:
    done = cli("bench", "startup", "/nowhere")
    assert done.returncode == 1
    assert "ended with status 1 before it listened" in done.stderr
    assert "there is no directory '/nowhere'" in done.stderr
